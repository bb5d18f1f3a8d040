"""Networks: backbones and heads, without losses."""
