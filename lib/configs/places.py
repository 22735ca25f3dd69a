"""Where the app lies: what has a default place is found beside it, whatever the folder."""

from pathlib import Path

APP = Path(__file__).resolve().parents[2]
PUBLISHED = APP / "model" / "neuropil.pt"
"""The weights that `main.py` uses where no others are named."""
FIRST_RUN = APP / "model" / "combined" / "train_01"
"""Where `main.py train` keeps a run for which no folder is named."""
