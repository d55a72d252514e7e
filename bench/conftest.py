"""The description of the machine in the JSON of pytest-benchmark."""

import machine


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["tinymlds"] = machine.describe()
