"""What all tests share: markers and where foreign test data may lie."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rtl: needs Verilator and a C++ compiler; builds and runs the RTL simulator")
    config.addinivalue_line("markers", "interpreted: reaches into the software as compiled modules do not let it")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with foreign checkpoints: ``FLEXSERVE_SHARED_DATA`` or ``../shared/data``; skips where neither exists."""
    folder = Path(os.environ.get("FLEXSERVE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "stories260K.bin").is_file():
        pytest.skip(f"no foreign checkpoint in {folder} (set FLEXSERVE_SHARED_DATA)")
    return folder
