"""Reads the compiled code of the hot entry points: float32 only, packed fused multiply-adds, no library mathematics.

Numba cannot show code that it loaded from its disk cache, so the code comes from a process with an empty cache. Of its
functions only those of the kernels count; the wrappers that Numba adds turn a result into a Python float, a double.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from test_targets import TARGETS

ROOT = Path(__file__).parent.parent

COMPILE = """
import json, sys
import numpy as np
from tinymlds.kernels import minibatch
from tinymlds.kernels.optimizers import Adam
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.training.backends.cpu import CpuBackend

CpuBackend().prepare(GruLinear(), Adam())
entry_points = {"train": minibatch.training(GruLinear(), Adam), "evaluate": minibatch.evaluation(GruLinear()).evaluate}
code = {}
for name, dispatcher in entry_points.items():
    [llvm], [assembly] = dispatcher.inspect_llvm().values(), dispatcher.inspect_asm().values()
    code[name] = {"llvm": llvm, "assembly": assembly}
json.dump(code, sys.stdout)
"""

TOYS = """
import json, sys
import numpy as np
from numba import njit

@njit
def toy_double(x):
    for i in range(x.size):
        x[i] = x[i] * 0.1 + 1.0  # float64 literals

@njit
def toy_library(x):
    for i in range(x.size):
        x[i] = np.tanh(x[i])

code = {}
for toy in (toy_double, toy_library):
    toy(np.ones(64, np.float32))
    [llvm], [assembly] = toy.inspect_llvm().values(), toy.inspect_asm().values()
    code[toy.__name__] = {"llvm": llvm, "assembly": assembly}
json.dump(code, sys.stdout)
"""


class Code(NamedTuple):
    """The functions of a program as text, by their mangled names."""

    llvm: dict[str, str]
    assembly: dict[str, str]


def llvm_functions(text: str, part: str) -> dict[str, str]:
    """Bodies of the functions whose mangled name has `part` in it, without Numba's wrappers."""
    functions = re.finditer(r'^define [^@]*@"?([^"(\s]+)"?\(.*?^}$', text, re.MULTILINE | re.DOTALL)
    return {function[1]: function[0] for function in functions if belongs(function[1], part)}


def assembly_functions(text: str, part: str) -> dict[str, str]:
    """The same from assembly: a function goes from its label to the next label that is not local."""
    pieces = re.split(r'^"?([A-Za-z_][^\s":]*)"?:', text, flags=re.MULTILINE)
    return {name: body for name, body in zip(pieces[1::2], pieces[2::2], strict=True) if belongs(name, part)}


def belongs(name: str, part: str) -> bool:
    return part in name and not name.startswith(("_ZN7cpython", "cfunc.", "_ZN08NumbaEnv", ".const"))


def compiled(program: str, part: str, cache: Path, **target: str) -> dict[str, Code]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TINYMLDS_CACHE_DIR": str(cache)} | target
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    code = json.loads(done.stdout)
    return {
        name: Code(llvm_functions(texts["llvm"], part), assembly_functions(texts["assembly"], part))
        for name, texts in code.items()
    }


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Code]:
    return compiled(COMPILE, "tinymlds", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Code]:
    return compiled(TOYS, "toy_", tmp_path_factory.mktemp("cache"))


# ------------------------------------------------------------------ what must not be there

LLVM_DOUBLE = re.compile(
    r"= (?:\w+ )*?f(?:add|sub|mul|div|rem|neg|cmp)\b[^\n]*\bdouble\b"
    r"|\bfpext\b|\bfptrunc\b"
    r"|\b[su]itofp\b[^\n]* to (?:<\d+ x )?double"
    r"|\bfpto[su]i\b[^\n]*\bdouble\b"
    r"|@llvm\.\w+(?:\.\w+)*\.(?:v\d+)?f64\b[^\n]*"
)
"""Arithmetic, conversions and intrinsics of float64, scalar or vector; moves of 64 bits are no arithmetic."""

X86_DOUBLE = re.compile(
    r"^\s+v?(?:fn?m(?:add|sub)\d+|add|sub|mul|div|sqrt|min|max|hadd|hsub|cmp\w*|u?comi|round|rndscale)[sp]d\b[^\n]*"
    r"|^\s+v?cvt\w*[sp]d\w*\b[^\n]*",
    re.MULTILINE,
)

ALLOWED_CALLS = re.compile(r"_ZN|llvm\.|NRT_(?:inc|dec)ref$|mem(?:set|cpy|move)$|\.L")
"""Kernels, LLVM's own operations, reference counts, and plain memory: none of them rounds a number."""


def llvm_called(body: str) -> set[str]:
    return {name for name in re.findall(r'\bcall [^\n]*?@"?([^"(\s]+)"?\(', body) if not ALLOWED_CALLS.match(name)}


def assembly_called(body: str) -> set[str]:
    """Functions are called by their address in a register, or directly; either way the symbol is named."""
    symbols = re.findall(r'(?:\bmovabsq\s+\$|\bcallq?\s+|\bjmp\s+)"?([A-Za-z_.][\w.$]*)', body)
    return {symbol for symbol in symbols if not ALLOWED_CALLS.match(symbol)}


def violations(code: Code) -> list[str]:
    """float64 arithmetic and calls to libraries, each with the function it is in."""
    found = []
    for name, body in code.llvm.items():
        found += [f"{name}: {match.group().strip()}" for match in LLVM_DOUBLE.finditer(body)]
        found += [f"{name}: calls {symbol}" for symbol in sorted(llvm_called(body))]
    for name, body in code.assembly.items():
        found += [f"{name}: {match.group().strip()}" for match in X86_DOUBLE.finditer(body)]
        found += [f"{name}: calls {symbol}" for symbol in sorted(assembly_called(body))]
    return found


@pytest.mark.parametrize("entry_point", ["train", "evaluate"])
def test_kernels_do_float32_arithmetic_and_call_no_library(kernels: dict[str, Code], entry_point: str) -> None:
    assert violations(kernels[entry_point]) == []


def test_float64_is_found(toys: dict[str, Code]) -> None:
    """One slip of a literal is what the checker is there for: in both forms of the code."""
    llvm, assembly = toys["toy_double"]
    found = violations(Code(llvm, {}))
    assert any("fmul" in line and "double" in line for line in found)
    assert any("fpext" in line for line in found)
    if is_x86(assembly):
        assert any("vcvtps2pd" in line or "vcvtss2sd" in line for line in violations(Code({}, assembly)))


def test_library_calls_are_found(toys: dict[str, Code]) -> None:
    llvm, assembly = toys["toy_library"]
    assert any("tanh" in line for line in violations(Code(llvm, {})))
    if is_x86(assembly):
        assert any("tanh" in line for line in violations(Code({}, assembly)))


# ------------------------------------------------------------------ what must be there


def is_x86(assembly: dict[str, str]) -> bool:
    return any("retq" in body for body in assembly.values())


@pytest.mark.parametrize("entry_point", ["train", "evaluate"])
def test_every_layer_is_in_the_code_that_was_read(kernels: dict[str, Code], entry_point: str) -> None:
    """So that the absence of violations says something: the passes are functions of their own, or inlined in these."""
    passes = {"train": ("forward", "backward", "gradient"), "evaluate": ("forward",)}[entry_point]
    for functions in kernels[entry_point]:
        for part in (entry_point, *passes):
            assert any(part in name for name in functions), part


@pytest.mark.parametrize("entry_point", ["train", "evaluate"])
def test_multiply_adds_are_fused_and_packed(kernels: dict[str, Code], entry_point: str) -> None:
    """A product of the default shape unrolls 12 rows of two vectors (AVX-512) or 6 of one, for each of several matrices."""
    llvm, assembly = ("\n".join(functions.values()) for functions in kernels[entry_point])
    assert len(re.findall(r"call <16 x float> @llvm\.fma\.v16f32", llvm)) > 50
    assert "llvm.fma.f32" not in llvm
    if is_x86(kernels[entry_point].assembly):
        assert len(re.findall(r"\bvfn?madd\d+ps\b[^\n]*%[yz]mm", assembly)) > 50
        assert not re.findall(r"\bvfn?m(?:add|sub)\d+ss\b", assembly)


def loops(body: str) -> list[str]:
    """The innermost loops: pieces of assembly that end with a jump to the label that they begin with."""
    pieces = re.split(r"^(\.L\w+):", body, flags=re.MULTILINE)
    found = []
    for label, text in zip(pieces[1::2], pieces[2::2], strict=True):
        jumps = list(re.finditer(rf"^\s+j\w+\s+{re.escape(label)}$", text, re.MULTILINE))
        found += [text[: jumps[0].end()]] if jumps else []
    return found


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads code of x86-64")
def test_sums_of_products_stay_in_registers(tmp_path: Path) -> None:
    """With 16 registers (AVX2) one sum too many goes through memory at each step of a product, and all wait for it."""
    code = compiled(COMPILE, "tinymlds", tmp_path, **TARGETS["avx2"])["train"].assembly
    products = [
        loop for body in code.values() for loop in loops(body) if loop.count("vfmadd") >= 12 and "vbroadcastss" in loop
    ]
    assert len(products) >= 8, "forwards and backwards, of the first layer and of the others"
    # %rbp is a pointer like any other where the loop moves it on, and else may be that of the frame.
    spilled = [loop for loop in products if "(%rsp)" in loop or ("(%rbp)" in loop and ", %rbp\n" not in loop)]
    assert spilled == []
