"""Pin the weights that bundled recipes name to the hub's present revision; needs the network."""

import re
import sys

from huggingface_hub import HfApi
from supply.check import RECIPES, unpinned_weights


def pin(text: str, name: str, revision: str) -> str:
    """Add the revision to a hub id in the text of a recipe.

    Example:
        >>> pin("{weights: org/net}", "org/net", "f00")
        '{weights: org/net@f00}'
    """
    return re.sub(rf"(weights: {re.escape(name)})(?=[\s,}}])", rf"\1@{revision}", text)


def main() -> None:
    """Rewrite the recipes."""
    for name in unpinned_weights():
        revision = str(HfApi().model_info(name).sha)
        for path in RECIPES.rglob("*.yaml"):
            before = path.read_text(encoding="utf-8")
            if (after := pin(before, name, revision)) != before:
                path.write_text(after, encoding="utf-8")
        sys.stdout.write(f"{name}@{revision}\n")


if __name__ == "__main__":
    main()
