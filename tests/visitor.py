"""Looks at folders of strangers, each in a process of its own with little memory and a watch on what it opens.

`python tests/visitor.py INTACT`: after a first look at an intact dataset, which loads what there is to load, it takes
lines of JSON {"folder", "megabytes"} on stdin, and for each writes a line {"outcomes": {look: [kind, message]}, "seconds",
"outside": paths opened, "unpickled": names}; "died" in place of all if the process did not live to tell.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import tinymlds
from tinymlds.errors import DatasetError, TinymldsError, UsageError

MEMORY = 256 << 20
WALL_SECONDS = 60


def visit(folder):
    """What comes of each look: ("fine", ""), ("refused", message) or, if it is none of our errors, ("raised", what)."""
    looks = {
        "open": lambda: tinymlds.open(folder),
        "weights": lambda: [tinymlds.open(folder).weights(task, unfinished=True) for task in tinymlds.open(folder).tasks],
        "losses": lambda: [tinymlds.open(folder).losses(task) for task in tinymlds.open(folder).tasks],
        "network": lambda: tinymlds.open(folder)["xor", 1].state_dict(),
        "verify": lambda: check(folder),
        "status": lambda: tinymlds.status(folder),
    }
    return {name: outcome(look) for name, look in looks.items()}


def check(folder):
    found = tinymlds.verify(folder)
    if not found.ok:
        if not all(problem.isprintable() for problem in found.problems):
            raise ValueError("a problem of several lines")
        raise DatasetError("; ".join(found.problems))


def outcome(look):
    try:
        look()
    except TinymldsError as error:
        if type(error) not in (TinymldsError, DatasetError, UsageError) or not str(error).isprintable():
            return "raised", repr(error)[:500]
        return "refused", str(error)
    except BaseException as error:
        return "raised", repr(error)[:500]
    return "fine", ""


def visit_watched(folder, output):
    """In a process of its own: `visit` with limits and a watch."""
    folder = Path(folder)
    inside, outside, unpickled = os.path.realpath(folder), [], []
    ours = (sys.prefix, sys.base_prefix, str(Path(tinymlds.__file__).parent), os.environ.get("NUMBA_CACHE_DIR", "-"))

    def watch(event, arguments):
        if event in ("open", "os.scandir", "os.listdir", "sqlite3.connect") and isinstance(
            arguments[0], str | bytes | Path
        ):
            path = os.path.realpath(os.fsdecode(arguments[0]).removeprefix("file://").split("?")[0])
            if not (path == inside or path.startswith(inside + os.sep) or path.startswith(ours)):
                outside.append(path)
        elif event == "pickle.find_class":
            unpickled.append(str(arguments))

    sys.addaudithook(watch)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    outside.clear()
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.alarm(WALL_SECONDS)
    start = time.process_time()
    outcomes = visit(folder)
    seconds = time.process_time() - start
    report = {"outcomes": outcomes, "seconds": seconds, "outside": outside, "unpickled": unpickled}
    os.write(output, json.dumps(report).encode())


def main():
    tinymlds.verify(sys.argv[1])
    visit(sys.argv[1])
    for line in sys.stdin:
        folder = json.loads(line)
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reader)
            try:
                visit_watched(folder, writer)
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, "rb") as pipe:  # noqa: PTH123, a descriptor
            report = pipe.read()
        _, status = os.waitpid(child, 0)
        print(report.decode() or json.dumps({"died": status}), flush=True)


if __name__ == "__main__":
    main()
