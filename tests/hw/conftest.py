"""Set-up shared by the gateware tests."""


def pytest_configure(config):
    # Constructors that refuse their parameters leave a component that is rightly never elaborated.
    config.addinivalue_line("filterwarnings", "ignore::amaranth.hdl.UnusedElaboratable")
