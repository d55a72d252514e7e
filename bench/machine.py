"""What a measurement was made on: CPU, cores, versions, commit."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "llvmlite", "torch", "jax")
ROOT = Path(__file__).parent.parent


def _output(*command: str) -> str:
    """What a command prints, or "" if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu_name() -> str:
    """The CPU's own name for itself, as far as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin" and (name := _output("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, with "+changes" if tracked files of the package or of bench/ differ from it."""
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "tinymlds", "bench")
    return (_output("git", "rev-parse", "HEAD") or "unknown") + ("+changes" if changed else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def describe() -> dict[str, Any]:
    """The machine and the software, for JSON."""
    return {
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }
