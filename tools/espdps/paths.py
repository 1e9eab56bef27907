"""Where things are: in a checkout of this repository, or in an installed package and the user's own folders.
Only names: nothing here may create, read or change a file. Nothing is ever written into the package."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_FILE = "esp-dps.toml"
_PACKAGE = Path(__file__).resolve().parent
ROOT = _PACKAGE.parents[1]  # of the checkout; means nothing where the package is installed
IN_CHECKOUT = (ROOT / "pyproject.toml").is_file() and (ROOT / "firmware").is_dir()
_DATA = ROOT if IN_CHECKOUT else _PACKAGE / "data"
FIRMWARE = _DATA / "firmware"
BOARDS = _DATA / "boards"
SHIMS = _PACKAGE / "shims"
MODULES = _PACKAGE.parent  # the folder that another Python has to search to import espdps
if IN_CHECKOUT:
    BUILD = ROOT / "build"  # downloads and builds
else:
    import platformdirs

    BUILD = platformdirs.user_cache_path("esp-dps", appauthor=False)


def project() -> Path:
    """The user's folder, with their devices, authority and application: the nearest folder upwards from the current one
    with an esp-dps.toml. Without one, the checkout when the current folder is in it, else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
        if IN_CHECKOUT and folder == ROOT:
            return folder
    return here


def devices() -> Path:
    """Folder of the device folders."""
    return project() / "devices"


def authority() -> Path:
    """Folder of the user's own certificate authority, as seen from the current folder."""
    return shown(project() / "ca")


def shown(path: Path) -> Path:
    """A path in the project folder as the user would type it in the current folder."""
    return Path(os.path.relpath(path))
