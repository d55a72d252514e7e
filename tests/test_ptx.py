"""The code that is compiled and linked for a GPU, read and run, without a GPU (numba-cuda has to be installed).

It comes by the way that a run takes, with a stand-in for the device that only says what it is. It is read for three compute
capabilities: float32 only, IEEE rounding, nothing fused but what the source fuses, weights and sums in registers. And it is
run by `ptx.py`, thread by thread in lockstep: the same bits as the CPU's, golden digests among them, no race, and every
barrier that is taken out is missed, unless another one follows.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ptx
import pytest
from test_cuda import KEY, SIMULATED, assert_same, check_fma, lr_at, make_problem, needs_package
from test_kernels import random_weights
from test_targets import GOLDEN

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, RnnLinear
from tinymlds.kernels import NUMERICS, rng
from tinymlds.kernels.optimizers import OPTIMIZERS
from tinymlds.kernels.problem import Floats, Problem
from tinymlds.spec import Recipe, Setting
from tinymlds.training import data
from tinymlds.training.backends.cpu import CpuBackend, mean

pytestmark = [needs_package, pytest.mark.skipif(SIMULATED, reason="the simulator compiles nothing")]
ROOT = Path(__file__).parent.parent

SHAPES = {
    "default": GruLinear(),
    "tanh": GruLinear(activation="tanh"),
    "small": GruLinear(inputs=3, hidden=4, outputs=2, layers=2, maps=3),
    "more outputs than units": GruLinear(inputs=2, hidden=4, outputs=6, layers=1, maps=3),
    "relu": GruLinear(inputs=3, hidden=4, outputs=6, layers=2, maps=3, activation="relu"),
    "tanh, one map": GruLinear(inputs=3, hidden=4, outputs=2, layers=1, maps=1, activation="tanh"),
    "wide": GruLinear(hidden=20, layers=2, maps=3),
    "one buffer": GruLinear(hidden=48, layers=2, maps=2),
    "largest": GruLinear(hidden=64, layers=2, maps=8),
    "lstm": LstmLinear(inputs=3, hidden=4, outputs=2, layers=2, maps=2),
    "lstm, tanh": LstmLinear(hidden=12, layers=2, maps=2, activation="tanh"),
    "rnn": RnnLinear(inputs=3, hidden=4, outputs=2, layers=3, maps=2),
}
ON_A_GPU = [name for name, kind in OPTIMIZERS.items() if name != "adam" and not kind.kernels]
KERNELS = {name: (shape, "adam") for name, shape in SHAPES.items()} | {
    f"one map, {name}": (SHAPES["tanh, one map"], name) for name in ON_A_GPU
}
"""Shape and optimizer of each kernel."""
CAPABILITIES = (7, 5), (8, 0), (9, 0)

COMPILE = """
import json, sys
from contextlib import nullcontext
from types import SimpleNamespace
from cuda.core._utils.cuda_utils import ComputeCapability
from numba.cuda import codegen, dispatcher
from tinymlds.kernels import cuda
from tinymlds.kernels.gpu.kernel import ARGUMENTS, train
from tinymlds.kernels.optimizers import OPTIMIZERS
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, RnnLinear
from tinymlds.training import data

device = SimpleNamespace(compute_capability=None, id=0)  # a stand-in: nothing is launched
dispatcher.get_current_device = lambda: device
codegen.devices.get_context = lambda: SimpleNamespace(device=device)
dispatcher._Kernel.bind = lambda kernel: kernel.library.get_cubin()  # linked, but not loaded
without_fusing, results = cuda._without_fusing, []
for capability, shapes, fused in eval(sys.argv[1]):
    device.compute_capability = ComputeCapability(*capability)
    cuda._without_fusing = nullcontext if fused else without_fusing
    train.cache_clear()  # another kernel; Numba keeps its typed functions, NVVM and the linker see all of it again
    result = {}
    for name, (shape, optimizer) in shapes.items():
        kernel = train(shape, OPTIMIZERS[optimizer])
        try:
            cuda.compile_kernel(kernel, ARGUMENTS)
        except ArithmeticError as error:
            result["refused"] = str(error)
            break
        (compiled,) = kernel.overloads.values()
        assert len(compiled.library.get_cubin().code) > 10_000
        result[name] = cuda.compiled_ptx(kernel)
    results.append(result)
json.dump(results, sys.stdout)
"""


class Wanted(NamedTuple):
    """Kernels to be compiled for a compute capability."""

    capability: tuple[int, int]
    names: tuple[str, ...]
    fused: bool = False
    """NVVM may fuse as it likes."""


TOGETHER = (
    Wanted((9, 0), tuple(name for name in KERNELS if name != "largest")),
    Wanted((7, 5), ("default", "tanh")),
    Wanted((9, 0), ("default",), fused=True),
)
"""In one process, as functions that are typed once serve all of them; the largest shape, which takes the longest, is
compiled by itself."""


@cache
def made(wanted: tuple[Wanted, ...]) -> list[dict[str, str]]:
    """What `compile_kernel` makes of shapes, in a process of its own; linked too, by the linker that a run uses."""
    jobs = [(each.capability, {name: KERNELS[name] for name in each.names}, each.fused) for each in wanted]
    command = [sys.executable, "-c", COMPILE, repr(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def compiled(wanted: Wanted) -> dict[str, str]:
    """The PTX of each kernel."""
    found = made(TOGETHER)[TOGETHER.index(wanted)] if wanted in TOGETHER else made((wanted,))[0]
    if "refused" in found:
        raise ArithmeticError(found["refused"])
    return found


def ptx_of(name: str) -> str:
    """For compute capability 9.0."""
    return compiled(Wanted((9, 0), (name,)) if name == "largest" else TOGETHER[0])[name]


# ------------------------------------------------------------------ read


def functions(ptx: str) -> dict[str, str]:
    """The bodies of a GRU layer's passes by their names; the second ones are those of the other kind of layer."""
    starts = [match.start() for match in re.finditer(r"^\.(?:weak|visible|extern) \.(?:func|entry)", ptx, re.MULTILINE)]
    bodies: dict[str, str] = {}
    for start, end in pairwise([*starts, len(ptx)]):
        text = ptx[start:end]
        head, _, body = text.partition("{")
        if name := re.search(r"5layer12_3clocals_3e\d*(forward|backward|gradient)B", head if body else ""):
            bodies[name[1] if name[1] not in bodies else f"{name[1]} 2"] = body
    return bodies


def count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("name", ["default", "tanh"])
def test_it_keeps_to_the_numerics(capability: tuple[int, int], name: str, request: pytest.FixtureRequest) -> None:
    from tinymlds.kernels.cuda import check_ptx

    if capability == (8, 0) and not request.config.getoption("--full"):
        pytest.skip("half a minute, between an older and a newer one: with --full")

    shape = SHAPES[name]
    ptx = ptx_of(name) if capability == (9, 0) else compiled(Wanted(capability, ("default", "tanh")))[name]
    check_ptx(ptx)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert count(r"\bdiv\.rn\.f32", ptx) >= 8
    assert count(r"\bsqrt\.rn\.f32", ptx) >= 1
    assert not count(r"\b(?:ex2|lg2|sin|cos|tanh|rsqrt)\.approx", ptx)
    assert not count(r"\.ftz\b", ptx)
    assert not count(r"\b(?:atom|red)\.", ptx.replace("bar.red", ""))
    bodies = functions(ptx)
    H, I = shape.hidden, shape.inputs
    # Unrolled: each of the three rows of weights of a unit once a step, for both samples of a thread.
    assert len(bodies) == 6
    fused = {name: count(r"\bfma\.rn\.f32", body) for name, body in bodies.items()}
    for name, expected in {"forward": (I + H, 2 * H), "backward": (H, 2 * H), "gradient": (I + H, 2 * H)}.items():
        low, high = sorted((fused[name], fused[f"{name} 2"]))
        assert low >= 6 * expected[0]
        assert high >= 6 * expected[1]
    for name, body in bodies.items():
        assert not count(r"\b(?:ld|st)\.local", body), f"{name}: its weights or sums are not in registers"
        assert count(r"\bld\.(?:global|shared)\.v2\.f32", body) >= 10, name


def test_fusing_would_be_noticed() -> None:
    with pytest.raises(ArithmeticError, match=r"(?:add|mul|sub)\.f32"):
        compiled(TOGETHER[2])


@pytest.mark.parametrize(
    "line",
    [
        "fma.rn.f64 %fd1, %fd1, %fd1, %fd2;",
        "cvt.f64.f32 %fd1, %f1;",
        "div.full.f32 %f1, %f2, %f3;",
        "sqrt.approx.ftz.f32 %f1, %f2;",
        "mul.f32 %f1, %f2, %f3;",
        "fma.rn.ftz.f32 %f1, %f2, %f3, %f4;",
    ],
)
def test_unsound_code_is_noticed(line: str) -> None:
    from tinymlds.kernels.cuda import check_ptx

    check_ptx("mul.rn.f32 %f1, %f2, %f3;\nmul.lo.s64 %rd1, %rd2, 4;\nsetp.lt.f32 %p1, %f1, %f2;")
    with pytest.raises(ArithmeticError, match="breaks the numerics"):
        check_ptx(line)


def test_registers_hold_what_they_should(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Three blocks of the default shape on a multiprocessor, in the 96 registers that this leaves to a thread.

    A called function saves up to some 77 registers for its caller, once for all steps; ptxas counts them as spilled.
    """
    from tinymlds.kernels.cuda import residency
    from tinymlds.kernels.recurrent.cuda_passes import threads

    assert residency(threads(GruLinear())) == (3, 96)
    if not request.config.getoption("--full"):
        pytest.skip("two minutes of ptxas: with --full")
    if (ptxas := shutil.which("ptxas")) is None:
        pytest.skip("ptxas is not at hand")
    version = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\d+)\.", version)
    if not release or int(release[1]) < 13:
        pytest.skip("ptxas is older than the code's version")
    text = re.sub(r"^\.version .*$", ".version 9.0", ptx_of("default"), flags=re.MULTILINE)
    (tmp_path / "kernel.ptx").write_text(text.replace("sm_90a", "sm_90"))
    options = ["-v", "-c", "-maxrregcount=96", "-arch=sm_90", "-o", str(tmp_path / "kernel.o")]
    done = subprocess.run([ptxas, *options, str(tmp_path / "kernel.ptx")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spilled = re.findall(r"5layer\S+\n\s+\d+ bytes stack frame, (\d+) bytes spill stores", done.stderr)
    assert len(spilled) == 6
    assert max(map(int, spilled)) <= 4 * 77 + 128


# ------------------------------------------------------------------ run


def run(text: str, problem: Problem, weights: Floats, index: int, key: rng.Key, epochs: int, lr=lr_at, races=True):
    """Weights and records float32 [epochs, 2] of a network that trains for some epochs; memory starts as NaN."""
    from tinymlds.kernels.gpu import layout
    from tinymlds.kernels.recurrent import cuda_passes
    from tinymlds.training.backends.cuda import _fixed

    shape, (size, steps) = problem.architecture, problem.train.inputs.shape
    arena = layout.arena(shape, cuda_passes.own_floats(shape, steps), steps)
    minibatches, carried, factors = size // problem.batch, problem.optimizer.start, []
    for epoch in range(1, epochs + 1):
        some, carried = problem.optimizer.factors(lr(epoch), carried, minibatches)
        factors.append(some)
    state, arenas, records = (
        np.full(shape, np.nan, np.float32) for shape in ((1, 4, shape.size), (1, arena.size), (1, epochs, 2))
    )
    state[0, layout.PARAMETERS] = weights
    results = np.full((1, 3), -1, np.int32)
    ptx.Program(text).launch(
        1,
        cuda_passes.threads(shape),
        [
            np.array([[0, 0, index, 1, epochs]], np.int32),
            steps,
            problem.batch,
            *(np.ascontiguousarray(words[None]) for part in (problem.train, problem.validation) for words in part),
            np.array([key], np.uint64),
            np.array(rng.halves(size), np.uint64),
            np.stack(factors),
            _fixed(problem, 0.0, minibatches),
            state,
            arenas,
            records,
            results,
        ],
        races,
    )
    assert results.tolist() == [[epochs, 0, 0]]
    return state[0, layout.PARAMETERS], records[0]


@pytest.mark.parametrize("name", SHAPES)
def test_it_gives_the_bits_of_the_cpu(name: str, request: pytest.FixtureRequest) -> None:
    """Two epochs of two minibatches of two blocks and a half, and a validation that ends on a partial block.

    Wider layers than four units train for one epoch if not `--full`, as each thread of a block is stepped through here.
    """
    full = request.config.getoption("--full")
    if name == "largest" and not full:
        pytest.skip("a minute: with --full")
    steps = 2 if SHAPES[name].hidden > 12 else 4
    epochs = 2 if full or SHAPES[name].hidden < 12 else 1
    problem = make_problem(SHAPES[name], steps, 80, 160)
    weights = random_weights(problem.architecture)
    got, records = run(ptx_of(name), problem, weights, 7, KEY, epochs)
    network, expected = CpuBackend().network(problem, weights), []
    for epoch in range(1, epochs + 1):
        losses = network.epoch(rng.permutation(KEY, 7, epoch, 160), lr_at(epoch))
        expected.append([mean(losses), network.validation_loss()])
    assert_same(records, np.array(expected))
    assert_same(got, network.weights)


@pytest.mark.parametrize("name", ON_A_GPU)
def test_every_optimizer_gives_the_bits_of_the_cpu(name: str) -> None:
    """Two epochs of two minibatches; weight decay too, where an optimizer has it."""
    kind = OPTIMIZERS[name]
    optimizer = kind(weight_decay=0.125) if "weight_decay" in kind.__dataclass_fields__ else kind()
    problem = make_problem(SHAPES["tanh, one map"], 3, 48, 96)._replace(optimizer=optimizer)
    weights = random_weights(problem.architecture)
    got, records = run(ptx_of(f"one map, {name}"), problem, weights, 3, KEY, 2)
    network, expected = CpuBackend().network(problem, weights), []
    for epoch in (1, 2):
        losses = network.epoch(rng.permutation(KEY, 3, epoch, 96), lr_at(epoch))
        expected.append([mean(losses), network.validation_loss()])
    assert_same(records, np.array(expected))
    assert_same(got, network.weights)


def test_it_gives_the_golden_bits(request: pytest.FixtureRequest) -> None:
    """The frozen digests of `test_targets.py` for the default shape: three epochs of 480 sequences."""
    if not request.config.getoption("--full"):
        pytest.skip("four minutes: with --full; the bits of the CPU, which has these digests, are compared above")
    sizes = {"train_sequences": 480, "validation_sequences": 100, "batch": 48, "max_epochs": 3}
    recipe = Recipe.of(**sizes, lr=0.003, lr_decay=0, beta2=0.999, eps=1e-8)
    key, problem = rng.stream_key(0, "xor"), data.problem(Setting("xor", 0, recipe))
    initial = params.initial(recipe.architecture, key, 0)
    weights, records = run(ptx_of("default"), problem, initial, 0, key, 3, recipe.lr_at, races=False)
    arrays = {"weights": weights, "losses": np.concatenate([records[:, 0], records[:, 1]])}
    for what, array in arrays.items():
        digest = hashlib.sha256(array.astype("<f4").tobytes()).hexdigest()
        assert digest == GOLDEN[NUMERICS][f"default: {what}"]


# ------------------------------------------------------------------ what runs it


def test_every_barrier_that_matters_is_missed() -> None:
    """Without one of them there is a race, or, where another barrier follows, nothing changes."""
    problem, text = make_problem(SHAPES["small"], 2, 48, 96), ptx_of("small")
    weights = random_weights(problem.architecture)
    expected, _ = run(text, problem, weights, 0, KEY, 1)
    lines, missed = text.splitlines(), []
    barriers = [number for number, line in enumerate(lines) if line.strip().startswith("bar.sync")]
    for number in barriers:
        without = "\n".join(lines[:number] + lines[number + 1 :])
        try:
            got, _ = run(without, problem, weights, 0, KEY, 1)
            assert_same(got, expected)
        except ptx.PtxError as error:
            missed.append(str(error))
    assert all("a race" in reason for reason in missed)
    # Every function ends with a barrier, whether the next one needs it or not.
    assert len(barriers) >= 20
    assert len(missed) >= 14


def test_its_fma_rounds_once() -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        check_fma(lambda *numbers: ptx.fma(*(np.array([number]) for number in numbers))[0])


SMALL = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry k3gpu6kernel5train(.param .u64 k_param_0, .param .u64 k_param_1, .param .u64 k_param_2,
    .param .u64 k_param_3, .param .u64 k_param_4, .param .u64 k_param_5, .param .u64 k_param_6)
{
    ld.param.u64 %rd1, [k_param_4];
    mov.u32 %r1, %tid.x;
    cvt.u64.u32 %rd2, %r1;
    shl.b64 %rd3, %rd2, 2;
    add.s64 %rd4, %rd1, %rd3;
    CODE
    ret;
}
"""


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ld.global.f32 %f1, [%rd4+4]; st.global.f32 [%rd4], %f1;", "a race"),
        ("st.global.u32 [%rd1], %r1;", "a race"),
        ("ld.global.v2.f32 {%f1, %f2}, [%rd4];", "not aligned"),
        ("ld.global.f32 %f1, [%rd4+256];", "outside of all arrays"),
        ("setp.lt.u32 %p1, %r1, 7; @%p1 ret; bar.sync 0;", "a barrier that not all threads reach"),
        (
            "setp.lt.u32 %p1, %r1, 7; @%p1 bra $L; shfl.sync.bfly.b32 %r2|%p2, %r1, 1, 31, -1; $L: bar.sync 0;",
            "not all threads of a warp",
        ),
        ("ex2.approx.ftz.f32 %f1, %f2;", "not known here"),
        ("mul.f32 %f1, %f2, %f3;", "not known here"),
        ("shl.b64 %rd5, %rd4, 64;", "a shift by the width"),
    ],
)
def test_it_refuses_what_a_gpu_may_not_do(code: str, error: str) -> None:
    program = ptx.Program(SMALL.replace("CODE", code.replace("; ", ";\n")))
    numbers = np.zeros(64, np.float32)
    with pytest.raises(ptx.PtxError, match=error):
        program.launch(1, 32, [numbers])


def test_threads_that_part_come_together_again() -> None:
    code = """
    mov.f32 %f1, 0f3F800000;
    setp.lt.u32 %p1, %r1, 5;
    @%p1 bra $ODD;
    mov.f32 %f1, 0f40000000;
    bra.uni $END;
$ODD:
    setp.ne.u32 %p2, %r1, 3;
    @%p2 bra $END;
    mov.f32 %f1, 0f40800000;
$END:
    shfl.sync.bfly.b32 %r2|%p3, %r1, 1, 31, -1;
    bar.sync 0;
    st.global.f32 [%rd4], %f1;
    """
    numbers = np.zeros(32, np.float32)
    ptx.Program(SMALL.replace("CODE", code)).launch(1, 32, [numbers])
    assert numbers.tolist() == [1, 1, 1, 4, 1] + [2] * 27
