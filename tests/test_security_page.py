"""The page of security properties is what the testplan, the proofs and the attacks say."""

import tomllib

import pytest

from docs.render_security import PAGE, PLAN, render


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_security_page_is_what_its_sources_say() -> None:
    assert PAGE.read_text() == render(), "run make docs"


def test_every_property_says_what_it_does_not_claim() -> None:
    claims = tomllib.loads(PLAN.read_text())["claim"]
    assert [claim["id"] for claim in claims if not claim.get("not_claimed")] == []
    assert [claim["id"] for claim in claims if not isinstance(claim.get("assumes", []), list)] == []
