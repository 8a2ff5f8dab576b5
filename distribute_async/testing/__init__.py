"""The pytest plugin of `docs/how-to/test-your-code.md`, by the name under which pytest is told of it.

Public: the fixtures `distribute_emulator` and `distribute_client`, to which the plugin itself belongs.
"""

pytest_plugins = ["_distribute_async_pytest"]
