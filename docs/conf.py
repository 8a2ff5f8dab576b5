"""How the documentation is built: `make docs`."""

from importlib.metadata import version as version_of

project = "distribute-async"
author = "The distribute-async authors"
copyright = "2026, the distribute-async authors"
version = release = version_of("distribute-async")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "distribute-async"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nitpick_ignore_regex = [
    ("py:.*", r"(aiohttp|asyncio|collections|datetime|ssl|uuid|typing|types|yarl|enum|pathlib)\b.*"),
    (
        "py:.*",
        r"(distribute_async\._|R$|R_co$|T$|Any$|Self$|StrEnum|Mapping|Generator|ClientSession|SSLContext|UUID|Default).*",
    ),
    ("py:.*", r"(Jitter|Endpoint|Poller|Track|Source|TaskResult|TaskStatus|Transition|Wire).*"),
]
