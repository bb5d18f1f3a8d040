"""Networks: backbones and heads; no objectives."""
