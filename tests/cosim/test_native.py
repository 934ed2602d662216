"""The software and the transaction-level machine as machine code: does what the Python does that it is made of."""

import os
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

import flexserve_sw
from flexserve_cosim.fastbench.jobs import JOB, bench_jobs
from flexserve_cosim.native import compile_software, compiled_modules, handles_while_waiting
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
    ],
)
def test_what_waits_while_it_handles_an_exception_stays_python(source: str, unfit: bool, tmp_path: Path) -> None:
    assert handles_while_waiting(source) is unfit
    for name in ("tasks.py", "lockstep.py"):
        (tmp_path / name).write_text(source)
    assert compiled_modules(tmp_path) == ([] if unfit else [Path("tasks.py")])


def test_what_a_job_spends_its_time_in_is_compiled() -> None:
    package = Path(flexserve_sw.__file__).parent
    modules = {path.as_posix() for path in compiled_modules()}
    fast = {path.relative_to(package).as_posix() for path in (package / "fast").glob("*.py")}
    assert fast - modules == {"fast/__init__.py", "fast/master.py"}
    hot = ("tasks", "sync", "integers", "llm/arithmetic", "llm/model", "npu/program", "npu/timing", "serving/npu")
    assert {f"{module}.py" for module in (*hot, "serving/tensors", "drivers/npu")} <= modules


def test_a_missing_compiler_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

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

    def test_the_modules_that_run_are_the_compiled_ones_and_pass_the_tests_of_the_software(self) -> None:
        folder = compile_software()
        path = os.pathsep.join([str(folder), *(entry for entry in sys.path if entry)])
        environment = {**os.environ, "PYTHONPATH": path}
        where = "import flexserve_sw.fast.job as a, flexserve_sw.serving.npu as b; print(a.__file__, b.__file__)"
        shown = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True)
        assert all(file.startswith(str(folder)) and file.endswith(".so") for file in shown.stdout.split())
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not interpreted and not rtl"]
        tests = subprocess.run(
            [*command, "tests/sw"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
        )
        assert tests.returncode == 0, tests.stdout[-3000:]
        passed = int(tests.stdout.strip().splitlines()[-1].split(" passed")[0].split()[-1])
        assert passed > 900
