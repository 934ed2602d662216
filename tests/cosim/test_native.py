"""The software and the transaction-level machine as machine code: does what the Python does that it is made of."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import flexserve_sw
from flexserve_cosim.fastbench.jobs import JOB, bench_jobs
from flexserve_cosim.native import build_key, compile_software, compiled_modules, handles_while_waiting
from flexserve_cosim.session import JobFailed, Stopped, simulate_native
from flexserve_sw.errors import UserError
from flexserve_sw.fast import simulate
from tests.sw.phone_bench import SMALL, argument

ROOT = Path(__file__).parents[2]

@pytest.mark.parametrize(
    ("source", "unfit"),
    [
        ("async def f():\n try:\n  await g()\n except OSError as error:\n  kept = error\n await h(kept)", False),
        ("async def f():\n try:\n  await g()\n finally:\n  h()", False),
        ("async def f():\n try:\n  g()\n except OSError:\n  await h()", True),
        ("async def f():\n try:\n  g()\n finally:\n  await h()", True),
        ("async def f():\n try:\n  g()\n except OSError:\n  if h:\n   async with h: pass", True),
        ("def f():\n try:\n  g()\n except OSError:\n  yield h", True),
        ("def f():\n try:\n  g()\n finally:\n  yield from h", True),
        ("async def f():\n try:\n  g()\n finally:\n  async for x in h: pass", True),
        ("async def f():\n try:\n  g()\n except OSError:\n  h([x async for x in y])", True),
        ("async def f():\n try:\n  g()\n except* OSError:\n  await h()", True),
        ("async def f():\n async with h:\n  await g()", False),
    ],
)
def test_what_waits_while_it_handles_an_exception_stays_python(source: str, unfit: bool, tmp_path: Path) -> None:
    assert handles_while_waiting(source) is unfit
    for name in ("tasks.py", "lockstep.py"):
        (tmp_path / name).write_text(source)
    assert compiled_modules(tmp_path) == ([] if unfit else [Path("tasks.py")])


def test_nobody_is_compiled_who_leaves_a_context_that_waits(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("async def f():\n async with h:\n  await g()")
    (tmp_path / "machine.py").write_text("x = 1")
    quick = "class H:\n async def __aexit__(self, *error):\n  self.leave()"
    (tmp_path / "elsewhere.py").write_text(quick)
    assert compiled_modules(tmp_path) == [Path("machine.py"), Path("tasks.py")]
    (tmp_path / "elsewhere.py").write_text(quick.replace("self", "await self", 2).replace("await self,", "self,"))
    assert compiled_modules(tmp_path) == [Path("machine.py")]


def test_what_a_job_spends_its_time_in_is_compiled() -> None:
    package = Path(flexserve_sw.__file__).parent
    modules = {path.as_posix() for path in compiled_modules()}
    fast = {path.relative_to(package).as_posix() for path in (package / "fast").glob("*.py")}
    assert fast - modules == {"fast/__init__.py", "fast/master.py"}
    hot = ("tasks", "sync", "integers", "llm/arithmetic", "llm/model", "npu/program", "npu/timing", "drivers/npu")
    serving = ("npu", "tensors", "pager", "pages", "swap", "engine", "recall")
    whole = {*(f"{module}.py" for module in hot), *(f"serving/{module}.py" for module in serving)}
    assert whole | {"monitor/monitor.py", "normal/system.py"} <= modules
    # Nothing that a serving job runs in waits while it handles an exception: all that stays Python is named.
    places = ("drivers", "fast", "llm", "monitor", "normal", "npu", "serving")
    found = {path.relative_to(package).as_posix() for place in places for path in (package / place).rglob("*.py")}
    readers = {f"llm/{module}.py" for module in ("gguf_reader", "hf_reader", "tokenizer_json")}
    named = {"fast/master.py", "serving/parts.py"} | readers
    assert {module for module in found - modules if not module.endswith("__init__.py")} == named


def copied(folder: Path) -> Path:
    """A copy of the package."""
    package = Path(flexserve_sw.__file__).parent
    return Path(shutil.copytree(package, folder / "copy", ignore=shutil.ignore_patterns("__pycache__")))


def test_build_is_told_apart_by_all_that_makes_it_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = copied(tmp_path)
    keys = [build_key(package)]
    assert keys == [build_key()]
    (package / "platforms" / "phone.toml").rename(package / "llm" / "phone.toml")
    keys.append(build_key(package))
    (package / "tasks.py").write_text("x = 1")
    keys.append(build_key(package))
    for name, value in (("CC", "clang"), ("CFLAGS", "-march=native")):
        monkeypatch.setenv(name, value)
        keys.append(build_key(package))
    for need in ("mypy", "setuptools", "numpy"):
        real = importlib.metadata.version
        monkeypatch.setattr("importlib.metadata.version", lambda n, need=need, v=real: "0" if n == need else v(n))
        keys.append(build_key(package))
    assert len(set(keys)) == len(keys) == 8


def test_build_that_fails_leaves_none_and_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path))
    monkeypatch.setattr("flexserve_cosim.native._BUILD", "flexserve_cosim.nothing")
    with pytest.raises(UserError, match=r"mypyc failed with exit code 1; the last lines it wrote: .*No module named"):
        compile_software()
    assert not (tmp_path / "native" / build_key()).exists()


def test_sources_that_change_under_way_are_not_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path))
    keys = iter(["before", "after"])
    monkeypatch.setattr("flexserve_cosim.native.build_key", lambda package=None: next(keys))
    with pytest.raises(UserError, match="The software has changed while it was to be compiled"):
        compile_software()
    assert not (tmp_path / "native" / "before").exists()


def test_a_finished_build_needs_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXSERVE_BUILD", str(tmp_path))
    monkeypatch.setenv("CC", "nocc")
    with pytest.raises(UserError, match="there is no nocc; install one"):
        compile_software()
    (tmp_path / "native" / build_key()).mkdir(parents=True)
    assert compile_software() == tmp_path / "native" / build_key()
    monkeypatch.setenv("CC", " ")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="needs Python's headers"):
        compile_software()


def test_missing_mypy_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", nothing)
    with pytest.raises(UserError, match="needs mypy: install extra native of the project"):
        compile_software()


@pytest.mark.rtl  # it needs a C compiler
@pytest.mark.xdist_group("native")
class TestCompiled:
    @pytest.mark.parametrize("name", ["flexserve", "flexserve (int8 KV)", "strawman-opt"])
    def test_job_of_the_demo_comes_out_as_in_python(self, name: str) -> None:
        folder = compile_software()
        with bench_jobs() as jobs:
            job = {job.name: job for job in jobs}[name]
            messages: dict[str, list[dict[str, Any]]] = {"python": [], "compiled": []}
            expected = simulate(JOB, job.argument, on_message=messages["python"].append)
            found = simulate_native(folder, JOB, job.argument, on_message=messages["compiled"].append)
        assert found["simulation"]["cycles"] == expected["simulation"]["cycles"]
        assert found | {"simulation": None} == expected | {"simulation": None}
        said = [[{**m, "time": 0, "cpu": 0} for m in messages[how]] for how in ("python", "compiled")]
        assert said[0] == said[1]
        assert len(said[0]) > 24

    def test_jobs_of_one_process_are_told_one_after_the_other(self) -> None:
        seen: list[str] = []
        machine = {"pages": SMALL["capacity"], "dram_bytes": SMALL["dram_bytes"]}
        result = simulate_native(
            compile_software(), JOB, argument(tokens=2), runs=3, on_message=lambda m: seen.append(m["kind"]), **machine
        )
        assert len(result["tokens"]) == 2
        assert seen.count("token") == 6

    def test_nobodys_settings_of_mypy_are_heeded(self, tmp_path: Path) -> None:
        (tmp_path / "mypy.ini").write_text("[mypy]\nstrict_optional = False\n")
        (tmp_path / "small.py").write_text("def half(x: int) -> int:\n    return x // 2\n")
        command = [sys.executable, "-P", "-m", "flexserve_cosim.mypyc_build", "small.py"]
        subprocess.run(command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, check=True, timeout=300)
        assert [path for path in tmp_path.glob("small.*") if path.suffix == ".so"]

    def test_what_a_user_did_wrong_and_what_a_job_raises_come_back(self) -> None:
        with pytest.raises(UserError, match="There is no option 'speed'"):
            simulate_native(compile_software(), JOB, argument(speed=1))
        with pytest.raises(UserError, match="can't be found"):
            simulate_native(compile_software(), "flexserve_sw.designs.job:nothing", {})
        with pytest.raises(JobFailed, match="Table capacity must be a power of two"):
            simulate_native(compile_software(), JOB, argument(), pages=3)

    def test_a_run_that_is_given_up_is_stopped(self) -> None:
        stop = threading.Event()
        with bench_jobs() as jobs, pytest.raises(Stopped):
            simulate_native(
                compile_software(), JOB, jobs[0].argument, on_message=lambda message: stop.set(), runs=1000, stop=stop
            )

    def test_compiled_modules_pass_the_tests_of_the_software(self) -> None:
        folder = compile_software()
        path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
        environment = {**os.environ, "PYTHONPATH": path}
        # Nothing of them can be taken from elsewhere: there is no source beside them.
        for module in compiled_modules():
            (beside,) = (folder / "flexserve_sw" / module.parent).glob(f"{module.stem}.*")
            assert beside.suffix == ".so"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not interpreted and not rtl"]
        tests = subprocess.run(
            [*command, "tests/sw"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
        )
        assert tests.returncode == 0, tests.stdout[-3000:]
        passed = int(tests.stdout.strip().splitlines()[-1].split(" passed")[0].split()[-1])
        assert passed > 900
