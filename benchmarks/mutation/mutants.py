"""The mutants of a source file: its text with one small error each.

Most errors come from cosmic-ray: another arithmetic operator or comparison, a number off by one, a
condition or sign turned around, a loop that never runs, a decorator removed. `ReplaceWord` and
`DropCall` add those that computations on tensors invite: a minimum for a maximum, a mean for a sum,
a gradient that is not stopped, a map that is not flipped or clamped.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

ARITHMETIC = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul")
BITS = ("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitOr", "LShift_RShift", "RShift_LShift")
COMPARISONS = (
    *("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt"),  # the boundary moves
    *("Lt_GtE", "LtE_Gt", "Gt_LtE", "GtE_Lt", "Eq_NotEq", "NotEq_Eq"),  # the opposite
    *("Is_IsNot", "IsNot_Is"),
)
OTHERS = (
    *("ReplaceUnaryOperator_Delete_USub", "ReplaceUnaryOperator_Delete_Invert"),
    *("ReplaceUnaryOperator_Delete_Not", "AddNot", "NumberReplacer"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer"),
    *("RemoveDecorator", "ZeroIterationForLoop"),
)
COMPUTING = {"term", "power", "expr"}
"""What a star or slash stands in where it computes; elsewhere it marks arguments."""
PAIRS = (
    *(("maximum", "minimum"), ("amax", "amin"), ("argmax", "argmin"), ("max", "min")),
    *(("mean", "sum"), ("ones_like", "zeros_like"), ("any", "all"), ("ceil", "floor")),
    *(("+=", "-="), ("*=", "/=")),
)
OPPOSITE = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
WORDS = {word: other for a, b in PAIRS for word, other in ((a, b), (b, a))}
DROPPED = {
    *("abs", "add_", "clamp", "clamp_", "contiguous", "cos", "detach", "div_", "exp", "flip"),
    *("log", "mul_", "neg", "pow", "relu", "round", "sigmoid", "softmax", "sqrt", "square"),
    *("sub_", "tanh", "transpose"),
}
"""Methods whose result can stand in for the tensor they are called on."""


@dataclass(frozen=True)
class Mutant:
    """A source file with one error.

    Attributes:
        line: Number of the line with the error, from 1.
        before: The line, without indentation.
        after: The line with the error.
        text: The whole file.
    """

    line: int
    before: str
    after: str
    text: str


class ReplaceWord(Operator):
    """Replace a name or an assigning operator by its counterpart."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield the place of the word."""
        if node.type in ("name", "operator") and node.value in WORDS and not _is_keyword(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the node with the other word."""
        node.value = WORDS[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples, which only cosmic-ray's documentation shows."""
        return ()


class DropCall(Operator):
    """Leave out the call of a method: `x.detach()` becomes `x`."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield the place of each call."""
        for trailer in _dropped_calls(node):
            yield trailer.start_pos, trailer.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the node without the call."""
        at = node.children.index(_dropped_calls(node)[index])
        del node.children[at : at + 2]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        """Return no examples, which only cosmic-ray's documentation shows."""
        return ()


def mutants_of(source: str, sample: int = 0, seed: int = 0) -> tuple[list[Mutant], int]:
    """Make the mutants of a file, or a random sample of them.

    Annotations of arguments and results have no effect and are left alone, and so are imports that
    only type checkers read. Two operators that give the same text give one mutant.

    Args:
        source: Text of the file.
        sample: Number of mutants to draw; 0 takes all.
        seed: Decides which are drawn.

    Returns:
        The mutants by line, and how many there are in all.
    """
    nodes = list(ast_nodes(get_ast(source)))
    texts = {_meaning(source): source}  # only the first text of each meaning stays
    for operator in _operators():
        found = [node for node in nodes for _ in operator.mutation_positions(node)]
        for index, node in enumerate(found):
            if node.type != "operator" or node.value not in "*/" or node.parent.type in COMPUTING:
                text = mutate_code(source, operator, index)
                texts.setdefault(_meaning(text), text)
    mutants = [_described(source, text) for meaning, text in texts.items() if meaning is not None]
    mutants = sorted(
        (mutant for mutant in mutants[1:] if "TYPE_CHECKING" not in mutant.before),
        key=lambda mutant: (mutant.line, mutant.after),
    )
    if not sample or sample >= len(mutants):
        return mutants, len(mutants)
    chosen = random.Random(seed).sample(range(len(mutants)), sample)
    return [mutants[index] for index in sorted(chosen)], len(mutants)


def _operators() -> list[Operator]:
    names = [f"ReplaceBinaryOperator_{pair}" for pair in (*ARITHMETIC, *BITS)]
    names += [f"ReplaceComparisonOperator_{pair}" for pair in COMPARISONS]
    return [get_operator(f"core/{name}")() for name in (*names, *OTHERS)] + [
        ReplaceWord(),
        DropCall(),
    ]


def _is_keyword(node: Any) -> bool:
    """Tell whether a name names an argument, is imported or is defined."""
    following = node.get_next_leaf()
    names_argument = node.parent.type in ("argument", "param") and following.value == "="
    return names_argument or node.is_definition() if node.type == "name" else False


def _dropped_calls(node: Any) -> list[Any]:
    """Find the names of dropped methods in `x.name(...)`, a chain of trailers."""
    if node.type not in ("atom_expr", "power"):
        return []
    found = []
    for name, call in zip(node.children[1:], node.children[2:], strict=False):
        if name.type != "trailer" or call.type != "trailer" or call.children[0].value != "(":
            continue
        if name.children[0].value == "." and name.children[1].value in DROPPED:
            found.append(name)
    return found if node.children[0].get_code().strip() not in ("torch", "F", "math") else []


def _meaning(text: str | None) -> str | None:
    """Describe what a file computes, without annotations of arguments; None if it is no Python."""
    try:
        tree = ast.parse(text or "?")
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(_WithoutNot().visit(tree))


class _WithoutNot(ast.NodeTransformer):
    """Write `not a == b` as `a != b` and `not not a` as `a`."""

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        inside = node.operand
        if not isinstance(node.op, ast.Not):
            return node
        if isinstance(inside, ast.UnaryOp) and isinstance(inside.op, ast.Not):
            return inside.operand
        if isinstance(inside, ast.Compare) and len(inside.ops) == 1:
            inside.ops[0] = OPPOSITE[type(inside.ops[0])]()
            return inside
        return node


def _described(source: str, text: str) -> Mutant:
    before, after = source.splitlines(), text.splitlines()
    pairs = enumerate(zip(before, after, strict=False))
    line = next((at for at, (a, b) in pairs if a != b), 0)
    return Mutant(line + 1, before[line].strip(), after[line].strip(), text)
