"""Writes the reference of the command line into docs/cli.md, from the program itself: `python docs/commands.py`."""

from pathlib import Path

import typer

from tinymlds.cli import app

PAGE = Path(__file__).parent / "cli.md"
MARK = "<!-- From here on written by docs/commands.py -->\n"


def reference():
    """Every command with its arguments and options, as Markdown."""
    text = ""
    for name, command in typer.main.get_command(app).commands.items():
        about, _, example = command.help.partition("Example: ")
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(["tinymlds", name, "[OPTIONS]", *map(_argument, arguments)])
        text += f"\n## {name}\n\n`{usage}`\n\n{about.strip()}\n\nExample: `{example.strip()}`\n\n"
        panels = {"": [f"- `{each.name.upper()}`: {each.help}\n" for each in arguments]}
        for each in command.params:
            if each not in arguments and each.name != "help":
                panel = getattr(each, "rich_help_panel", "") or ""
                panels.setdefault(panel, []).append(f"- {_option(each)}\n")
        text += "".join(panels.pop(""))
        if name == "generate":
            text += "\nThe options of the recipe are those of `train`.\n"
        else:
            text += "".join(f"\n{panel}:\n\n{''.join(lines)}" for panel, lines in panels.items())
    return text


def _argument(argument):
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _option(option):
    value = "" if option.is_flag else f" {option.name.upper()}"
    shown = option.show_default is True and option.default not in (None, False, 0)
    return f"`{', '.join(option.opts)}{value}`: {option.help}" + (f" (default: {option.default})" if shown else "")


def page():
    """The whole page: its text up to the mark, and the reference."""
    head, _, _ = PAGE.read_text().partition(MARK)
    return head + MARK + reference()


if __name__ == "__main__":
    PAGE.write_text(page())
