"""The rules of the repository: import direction, one row for each part in its README, lint, and what stands nowhere."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qfx import boards
from qfx.boards import Board
from qfx.tools import verilator

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for path in (ROOT / "qfx").rglob("*.py") if "templates" not in path.parts)
RTL = sorted((ROOT / "rtl").glob("*.sv"))
PYTHON_FOLDERS = ("qfx", "hls", "sim", "tests", "bench", "designs")
LONGEST_FILE = 500


def text(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def files(*patterns: str, folders=(*PYTHON_FOLDERS, "rtl")) -> list[Path]:
    found = {path for folder in folders for pattern in patterns for path in (ROOT / folder).rglob(pattern)}
    return sorted(path for path in found if "build" not in path.parts and "__pycache__" not in path.parts)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Imports ----------------------------------------------------------------------------------------------------------

BASE = {"arguments", "errors", "files", "resources", "yamlfile"}
MAY_IMPORT = {  # part of qfx -> the parts that it may know; fixed -> graph -> plan -> emit -> steps -> bundle -> cli
    "arguments": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "resources": {"errors"},
    "yamlfile": {"errors"},
    "boards": BASE,
    "fixed": {"arguments", "errors"},
    "graph": {*BASE, "fixed"},
    "plan": {*BASE, "fixed", "graph", "boards"},
    "emit": {*BASE, "fixed", "graph", "plan", "boards"},
    "tools": {*BASE, "fixed"},
    "nn": {*BASE, "fixed"},
    "sections": {*BASE, "fixed"},
    "design": {*BASE, "fixed", "boards", "sections"},
    "train": {*BASE, "fixed", "nn", "design", "sections"},
    "interop": {*BASE, "fixed", "nn", "graph"},
    "doctor": {*BASE, "tools"},
    "check": {*BASE, "fixed", "graph", "plan", "nn", "train", "boards", "design", "steps"},
    "steps": {*BASE, "fixed", "graph", "plan", "emit", "tools", "nn", "train", "boards", "design", "doctor"},
}
MAY_ALSO_IMPORT = {
    "qfx/nn/fused.py": {"tools"},
    "qfx/graph/lower.py": {"nn"},
    "qfx/graph/lower_arithmetic.py": {"nn"},
    "qfx/train/cost.py": {"graph", "plan", "boards"},
    "qfx/train/budget.py": {"plan"},
    "qfx/train/hardware.py": {"graph", "plan", "boards"},
    "qfx/train/runs.py": {"plan"},
}
HOMES = {  # package from elsewhere -> where it may be imported
    "torch": ("qfx/nn/", "qfx/train/", "qfx/graph/lower.py", "qfx/interop/"),
    "hls4ml": ("qfx/emit/hls/", "qfx/interop/", "qfx/doctor.py"),
    "cocotb": (),
    "cocotb_tools": (),
    "brevitas": ("qfx/interop/",),
}


def imports(code: str) -> set[str]:
    """The modules that ``code`` imports, ``qfx.<part>`` for ours, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"qfx.{alias.name}" for alias in node.names} if node.module == "qfx" else {str(node.module)}
    return found


def wrong_imports(path: str, code: str) -> list[str]:
    """The imports of the file ``path`` of qfx that the import direction forbids."""
    part = Path(path).relative_to("qfx").parts[0].removesuffix(".py")
    wrong = []
    for module in sorted(imports(code)):
        top, _, rest = module.partition(".")
        if top == "qfx" and rest and part in MAY_IMPORT:
            other = rest.split(".")[0]
            if other != part and other not in MAY_IMPORT[part] | MAY_ALSO_IMPORT.get(path, set()):
                wrong.append(f"{path} must not import qfx.{other}")
        if top in HOMES and not path.startswith(HOMES[top]):
            wrong.append(f"{path} must not import {top}")
    return wrong


def test_imports_follow_the_direction_of_the_design():
    found = [
        wrong
        for path in SOURCES
        if path.parent != ROOT / "qfx"
        for wrong in wrong_imports(name(path), path.read_text())
    ]
    found += [
        w
        for p in SOURCES
        if p.parent == ROOT / "qfx" and p.stem in MAY_IMPORT
        for w in wrong_imports(name(p), p.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("path", "code", "wrong"),
    [
        ("qfx/graph/ops.py", "from qfx.plan import plan", "qfx/graph/ops.py must not import qfx.plan"),
        ("qfx/graph/ops.py", "from qfx import nn", "qfx/graph/ops.py must not import qfx.nn"),
        ("qfx/tools/gxx.py", "import qfx.graph.store", "qfx/tools/gxx.py must not import qfx.graph"),
        ("qfx/plan/plan.py", "def f():\n    import torch.nn", "qfx/plan/plan.py must not import torch"),
        ("qfx/nn/x.py", "from qfx.graph.lower import lower", "qfx/nn/x.py must not import qfx.graph"),
    ],
)
def test_a_planted_import_is_found(path, code, wrong):
    assert wrong_imports(path, code) == [wrong]


def test_every_part_has_a_place_in_the_import_direction():
    parts = {path.relative_to(ROOT / "qfx").parts[0].removesuffix(".py") for path in SOURCES}
    assert parts - {"__init__", "__main__", "bundle", "cli"} <= set(MAY_IMPORT)


def test_everything_after_lowering_runs_without_torch():
    parts = ("fixed", "graph", "plan", "emit", "tools", "boards", "design", "resources")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.relative_to(ROOT / "qfx").parts[0].removesuffix(".py") in parts
        and path.name not in ("lower.py", "_objcache.py")
    ]
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module(m)\nsys.exit('torch' in sys.modules)"
    paths = [str(ROOT), str(ROOT / "hls"), str(ROOT / "sim" / "bench")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr or "torch was imported"


# Lint -------------------------------------------------------------------------------------------------------------


def run_lint(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_lint_is_clean():
    run_lint("ruff", "check", "--quiet")


def test_ruff_format_lint_is_clean():
    run_lint("ruff", "format", "--check", "--quiet")


def test_mypy_lint_is_clean():
    run_lint("mypy")


@pytest.mark.parametrize("path", RTL, ids=lambda path: path.stem)
def test_rtl_module_passes_lint_alone(path, tmp_path):
    verilator.lint(verilator.closure([path], [ROOT / "rtl"]), path.stem, log=tmp_path / "lint.log")


# RTL --------------------------------------------------------------------------------------------------------------


def test_rtl_files_are_named_like_their_one_module():
    wrong = [
        name(p)
        for p in RTL
        if re.findall(r"^\s*module\s+(\w+)", verilator.uncommented(p.read_text()), re.M) != [p.stem]
    ]
    assert wrong == []


def table(path: str) -> dict[str, list[str]]:
    """The rows of the tables of a README: first cell, without link and code marks -> all cells."""
    rows = [line.strip().strip("|").split("|") for line in text(path).splitlines() if line.startswith("|")]
    cells = [[re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).strip().strip("`") for cell in row] for row in rows]
    return {row[0]: row for row in cells}


def test_every_rtl_module_has_a_row_with_a_bench_that_exists():
    rows = table("rtl/README.md")
    modules = [path.stem for path in RTL]
    assert [module for module in modules if module not in rows] == []
    benches = {module: rows[module][-1].strip("`") for module in modules}
    assert {m: b for m, b in benches.items() if not list((ROOT / b).glob("test_*.py")) or "sim/tb" not in b} == {}
    assert [row for row in rows if row.startswith("qfx_") and row not in modules] == []


def called(node: ast.Call) -> str:
    """The name of the function that is called, without the object or module before it."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def plants_a_fault(node: ast.AST) -> bool:
    """Whether a statement is a run that must fail with a message: with pytest.raises(BenchFailure, match=...)."""
    if not isinstance(node, ast.With):
        return False
    guards = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
    expected = [guard for guard in guards if called(guard) == "raises" and guard.args and guard.keywords]
    named = any(ast.unparse(guard.args[0]).endswith("BenchFailure") for guard in expected)
    return named and any(called(call) in ("run", "simulate") for call in calls(node))


def stall_kinds(tree: ast.AST) -> set[bool]:
    """Whether a bench runs with stalls (True), without (False), or both."""
    kinds = set()
    for call in calls(tree):
        given = [k.value for k in call.keywords if k.arg in ("stall", "stalls") and isinstance(k.value, ast.Constant)]
        kinds |= {bool(value.value) for value in given}
        if called(call) in ("patterns", "goes"):  # one of each kind
            kinds |= {True, False}
        if called(call) == "simulate" and not given:
            kinds.add(False)
    return kinds


def bench_flaws(code: str, stalls: bool) -> list[str]:
    """What the bench ``code`` does not have; it needs runs with and without ``stalls`` where its part can wait."""
    tree = ast.parse(code)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    tests = [ast.unparse(decorator) for f in functions for decorator in f.decorator_list]
    names = {called(call) for call in calls(tree)}
    flaws = {
        "a pytest function": not any(f.name.startswith("test_") for f in functions),
        "a cocotb test": "simulate" not in names and not any(test.startswith("cocotb.test") for test in tests),
        "a planted fault": not any(plants_a_fault(node) for node in ast.walk(tree)),
        "runs with stalls": stalls and True not in stall_kinds(tree),
        "runs without stalls": stalls and False not in stall_kinds(tree),
    }
    return [flaw for flaw, found in flaws.items() if found]


def can_wait(module: str) -> bool:
    """Whether an RTL module has a port that says when it takes or gives a word."""
    return bool(re.search(r"\b(\w*valid|\w*ready|step|take)_[io]\b", text(f"rtl/{module}.sv")))


def test_every_bench_runs_with_and_without_stalls_and_plants_a_fault():
    modules = {row[0]: row[-1] for row in table("rtl/README.md").values() if row[-1].startswith("sim/tb/")}
    found = {}
    for path in sorted((ROOT / "sim" / "tb").glob("*/test_*.py")):
        parts = [module for module, bench in modules.items() if bench == name(path.parent)]
        found[name(path)] = bench_flaws(path.read_text(), not parts or any(can_wait(part) for part in parts))
    assert len(found) > 20
    assert {path: flaws for path, flaws in found.items() if flaws} == {}


GOOD_BENCH = """
@cocotb.test()
async def words_leave(dut):
    await words(dut, stall=0.0)
    await words(dut, stall=0.4)
def test_words_leave():
    run("part", __file__)
def test_planted_fault_is_seen():
    with pytest.raises(BenchFailure, match="words_leave"):
        run("part", __file__, sources=[plant("part", "a", "b")])
"""


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("def test_", "def check_", "a pytest function"),
        ("@cocotb.test()", "", "a cocotb test"),
        ("pytest.raises(BenchFailure", "pytest.raises(ValueError", "a planted fault"),
        (', match="words_leave"', "", "a planted fault"),
        ('run("part", __file__, sources=[plant("part", "a", "b")])', "pass", "a planted fault"),
        ("stall=0.4", "stall=0.0", "runs with stalls"),
        ("stall=0.0", "stall=0.4", "runs without stalls"),
    ],
)
def test_a_planted_flaw_of_a_bench_is_found(old, new, flaw):
    assert bench_flaws(GOOD_BENCH, stalls=True) == []
    assert bench_flaws(GOOD_BENCH.replace(old, new), stalls=True) == [flaw]


PARAMETER = r"(?:[A-Z]\w*|\d[\w']*)"


def products_of_signals(code: str) -> list[str]:
    """The products in SystemVerilog ``code`` of which neither factor next to the ``*`` is a parameter or a number."""
    code = re.sub(
        r"\(\*.*?\*\)|@\(\*\)|@\*|\.\*|\*\*|\"(?:\\.|[^\"\\])*\"", " ", verilator.uncommented(code), flags=re.S
    )
    found = []
    for match in re.finditer(r"\*", code):
        before, after = code[: match.start()].rstrip(), code[match.end() :].lstrip()
        if not re.search(rf"(?<!\w){PARAMETER}$", before) and not re.match(rf"{PARAMETER}\b", after):
            found.append(f"{before[-20:]} * {after[:20]}")
    return found


def memories(code: str) -> list[str]:
    """The unpacked arrays that SystemVerilog ``code`` declares as variables."""
    code = verilator.uncommented(code)
    kind = r"(?:logic|reg|bit|byte|integer|int|\w+_t)(?:\s+(?:un)?signed)?(?:\s*\[[^\]]*\])*"
    return [
        m[1]
        for m in re.finditer(
            rf"(?<!parameter )(?<!localparam )\b{kind}\s+(?:\w+\s*,\s*)*(?!(?:un)?signed\b)(\w+)\s*\[", code
        )
    ]


def test_arrays_stand_only_in_rom_and_ram():
    homes = {"qfx_rom", "qfx_ram_sdp"}
    assert {path.stem: memories(path.read_text()) for path in RTL if memories(path.read_text())}.keys() == homes


def test_products_of_signals_stand_only_in_multiplier_leaves():
    found = {path.stem: products_of_signals(path.read_text()) for path in RTL}
    assert {
        module: products for module, products in found.items() if products and not module.startswith("qfx_mul_")
    } == {}
    assert found["qfx_mul_dsp"]


def test_a_planted_array_and_a_planted_product_are_found():
    assert memories("logic [7:0] a, mem [16]; logic [3:0][1:0] packed_only; word_t rows [Depth]; assign x = a[3];") == [
        "mem",
        "rows",
    ]
    assert (
        len(products_of_signals("assign p = a * b; assign q = x[i*W +: W] * (c + d); always @(*) y = a * Width;")) == 2
    )


# Parts and their tables -------------------------------------------------------------------------------------------


def operations() -> list[str]:
    tree = ast.parse("\n".join(text(f"qfx/graph/{file}.py") for file in ("ops", "moves", "arithmetic")))
    bases = {
        n.name: {b.id for b in n.bases if isinstance(b, ast.Name)} for n in tree.body if isinstance(n, ast.ClassDef)
    }
    classes = {name for name, parents in bases.items() if "Op" in parents}
    classes |= {name for name, parents in bases.items() if parents & classes}
    return sorted(name for name in classes if not name.startswith("_"))


def test_there_are_operations():
    assert {"Conv2d", "Requantize", "DeformConv2d"} <= set(operations())


@pytest.mark.parametrize("operation", operations())
def test_operation_has_specification_cases_kernel_and_module(operation):
    assert re.search(rf"^### {operation}$", text("qfx/graph/SPEC.md"), re.M), "a section in qfx/graph/SPEC.md"
    names = ("cases", "arithmetic_cases", "move_cases")
    cases = "".join(text(f"tests/conformance/{name}.py") for name in names)
    assert re.search(rf"\b{operation}\b", cases), "cases in tests/conformance/*cases.py"
    assert re.search(rf"\b{operation}\b", text("hls/README.md")), "its kernel, or why it needs none, in hls/README.md"
    assert re.search(rf"\b{operation}\b", text("rtl/README.md")), "its module, or why it needs none, in rtl/README.md"


@pytest.mark.parametrize("path", sorted((ROOT / "hls" / "include" / "qfx").glob("*.hpp")), ids=lambda path: path.name)
def test_hls_kernel_has_a_row(path):
    assert f"`{path.name}`" in text("hls/README.md")


@pytest.mark.parametrize("board", boards.names())
def test_board_has_a_row_that_says_what_its_file_says(board):
    facts = Board.load(board)
    budget = facts.budget
    numbers = [f"{n:,}" for n in (budget.lut, budget.ff, budget.bram36, budget.uram, budget.dsp)]
    clocks = ", ".join(f"{clock:g}" for clock in facts.clocks_mhz)
    assert table("boards/README.md")[board] == [board, facts.part, *numbers, clocks, facts.proved.value]


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in (ROOT / "designs").glob("*/design.yaml")), ids=lambda p: p.name
)
def test_design_has_a_row_and_a_readme(folder):
    assert folder.name in table("designs/README.md")
    assert (folder / "README.md").is_file() and (folder / "model.py").is_file()


# What stands nowhere ----------------------------------------------------------------------------------------------


def test_no_file_is_longer_than_five_hundred_lines():
    long = {
        name(p): n for p in files("*.py", "*.sv", "*.hpp", "*.cpp") if (n := p.read_text().count("\n")) > LONGEST_FILE
    }
    assert long == {}


def test_every_module_starts_with_a_docstring():
    missing = [
        name(p) for p in files("*.py") if p.read_text().strip() and not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert missing == []


def skips_without_reason(code: str) -> list[int]:
    """The lines of ``code`` on which pytest skips or expects a failure without saying why."""
    lines = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "xfail", "importorskip"):
            called = [
                c for c in ast.walk(ast.parse(code)) if isinstance(c, ast.Call) and ast.dump(c.func) == ast.dump(node)
            ]
            given = [
                c for c in called if any(k.arg == "reason" for k in c.keywords) or (node.attr == "skip" and c.args)
            ]
            if "pytest" in ast.unparse(node) and len(given) < max(len(called), 1):
                lines.append(node.lineno)
    return lines


def test_every_skip_has_a_reason():
    found = {
        name(p): lines
        for p in files("*.py", folders=("tests", "sim"))
        if (lines := skips_without_reason(p.read_text()))
    }
    assert found == {}


def test_a_planted_skip_is_found():
    assert skips_without_reason("import pytest\n@pytest.mark.skip\ndef test_a(): pass\n") == [2]
    assert skips_without_reason("import pytest\npytest.mark.skipif(True)\npytest.skip()\npytest.skip('why')") != []
    assert skips_without_reason("import pytest\npytest.mark.skipif(True, reason='no GPU')\npytest.skip('why')") == []


def test_no_generated_or_vendored_banner_and_no_local_path_is_in_the_sources():
    # Written in two parts so that this file does not find itself.
    words = ("/work" + "/main", "/ho" + "me/", "/ro" + "ot/")
    found = [
        name(p) for p in files("*.py", "*.sv", "*.hpp", "*.cpp", "*.md", "*.yaml") for w in words if w in p.read_text()
    ]
    assert found == []
