"""Sampled JSON against the jsonschema package: hypothesis' schemas, pydantic's, hostile ones."""

import enum
import json
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, HttpUrl, TypeAdapter

from agent_runtime.json_sampling.sampling_errors import SchemaError, UnsatisfiableError
from agent_runtime.json_sampling.schema_check import satisfies
from agent_runtime.json_sampling.schema_document import SchemaDocument
from agent_runtime.json_sampling.schema_sampler import sample_json

VALIDATOR = jsonschema.Draft202012Validator
seeds = st.integers(0, 2**32)
NODE = {"$ref": "#/$defs/node"}
small = st.integers(0, 4)


def sample(schema: Any, seed: int = 0) -> Any:
    return sample_json(schema, np.random.default_rng(seed))


def bounded(least: str, most: str, **fixed) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(small, small).map(lambda b: {**fixed, least: b[0], most: b[0] + b[1]})


numbers = st.one_of(
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).map(
        lambda b: {"type": "integer", "minimum": b[0], "exclusiveMaximum": b[0] + b[1] + 1}
    ),
    st.floats(-1e6, 1e6).map(lambda low: {"type": "number", "exclusiveMinimum": low}),
    st.integers(1, 9).map(lambda step: {"type": "integer", "multipleOf": step, "minimum": 1}),
    st.sampled_from([0.5, 0.25, 0.1, 3]).map(lambda s: {"type": "number", "multipleOf": s}),
)
strings = st.one_of(
    bounded("minLength", "maxLength", type="string"),
    st.sampled_from(
        ["^a+b?$", r"^\d{2,4}-[A-Fx_]+", "x|y{3}", r"[^a-z\s]{2}", "", "^(ab|c)*$"]
    ).map(lambda pattern: {"type": "string", "pattern": pattern}),
    st.sampled_from(["date", "date-time", "email", "uuid", "uri", "odd"]).map(
        lambda name: {"type": "string", "format": name}
    ),
)
scalars = st.sampled_from([None, True, False, 0, 1, 2.5, "a", "b", ""])
enums = st.lists(scalars, min_size=1, max_size=4).map(lambda values: {"enum": values})
leaves = st.one_of(
    numbers,
    strings,
    enums,
    scalars.map(lambda value: {"const": value}),
    st.sampled_from([True, {}, {"type": "null"}, {"type": ["boolean", "null"]}]),
)
names = st.sampled_from(["a", "b", "c", "d"])


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.builds(
        lambda properties, required, additional, more: {
            "type": "object",
            "properties": properties,
            "required": sorted(required & set(properties)),
            "additionalProperties": additional,
            **more,
        },
        st.dictionaries(names, inner, max_size=4),
        st.sets(names),
        st.booleans() | inner,
        st.sampled_from(
            [{}, {"minProperties": 1}, {"maxProperties": 3}, {"patternProperties": {"^x": True}}]
        ),
    )
    arrays = st.builds(
        lambda items, prefix, bounds, unique: {
            **bounds,
            "items": items,
            "prefixItems": prefix,
            **({"uniqueItems": True} if unique else {}),
        },
        inner,
        st.lists(inner, max_size=2),
        bounded("minItems", "maxItems", type="array"),
        st.booleans(),
    )
    branches = st.lists(inner, min_size=1, max_size=3)
    combined = st.one_of(
        branches.map(lambda b: {"anyOf": b}),
        branches.map(lambda b: {"oneOf": b}),
        branches.map(lambda b: {"allOf": b}),
        st.tuples(inner, inner).map(lambda p: {"anyOf": [p[0]], "not": p[1]}),
        st.tuples(inner, inner, inner).map(lambda p: {"if": p[0], "then": p[1], "else": p[2]}),
        inner.map(lambda one: {"anyOf": [{"type": "array", "items": NODE, "maxItems": 2}, one]}),
    )
    return objects | arrays | combined


parts = st.recursive(leaves, nested, max_leaves=8)
schemas = st.builds(lambda root, node: {"$defs": {"node": node}, "allOf": [root]}, parts, parts)


@given(schemas, seeds)
def test_what_is_sampled_is_valid_or_the_place_that_asks_too_much_is_named(
    schema: dict[str, Any], seed: int
) -> None:
    refused = None
    try:
        value = sample(schema, seed)
    except SchemaError as error:
        refused, value = error, None
    if refused is not None:
        assert refused.place.startswith("schema")
        return
    VALIDATOR(schema).validate(value)
    assert json.loads(json.dumps(value)) == value
    assert json.dumps(sample(schema, seed)) == json.dumps(value), "the same seed, the same value"


@given(parts, scalars | st.lists(scalars, max_size=3) | st.dictionaries(names, scalars))
def test_values_are_judged_as_jsonschema_judges_them(schema: Any, value: Any) -> None:
    root = {"$defs": {"node": {"type": "null"}}, "allOf": [schema]}
    assert satisfies(value, root, SchemaDocument(root), "") == VALIDATOR(root).is_valid(value)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    kind: Literal["leaf"]
    at: datetime
    weight: float | None = Field(default=None, gt=0, le=2.5)


class Branch(BaseModel):
    kind: Literal["branch"]
    left: "Tree"
    right: "Tree"
    colour: Colour


Tree = Annotated[Leaf | Branch, Field(discriminator="kind")]


class Order(BaseModel):
    id: UUID
    day: date
    code: str = Field(pattern=r"^[A-Z]{2,3}-\d{4}$")
    note: str = Field(min_length=30, max_length=60)
    counts: dict[str, int]
    pair: tuple[int, Literal["x", "y"]]
    tags: set[Annotated[str, Field(max_length=8)]] = Field(min_length=2, max_length=4)
    items: list["Order"] = []
    parent: "Order | None" = None
    page: HttpUrl
    share: Annotated[float, Field(ge=0, lt=1)]
    even: Annotated[int, Field(multiple_of=2, ge=-10, le=10)]


class Grid(BaseModel, extra="forbid"):
    rows: list[list[Annotated[int, Field(ge=0, le=9)]]] = Field(min_length=3, max_length=3)
    tree: Tree


@pytest.mark.parametrize("model", [Order, Grid, Branch, list[Leaf], dict[Colour, Leaf | None]])
def test_pydantics_own_schemas_give_values_its_models_accept(model: Any) -> None:
    adapter = TypeAdapter(model)
    schema = adapter.json_schema()
    for seed in range(40):
        value = sample(schema, seed)
        VALIDATOR(schema).validate(value)
        adapter.validate_json(json.dumps(value))


def test_an_answer_to_every_optional_member_comes_with_some_seed() -> None:
    schema = {"type": "object", "properties": {n: {"type": "null"} for n in "abc"}}
    seen = {tuple(sample(schema, seed)) for seed in range(60)}
    assert len(seen) == 8


DEEP: dict[str, Any] = {"type": "integer"}
for _ in range(60):
    DEEP = {"type": "array", "minItems": 1, "items": DEEP}
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array", "minItems": 10**12}, "longer value"),
        ({"type": "object", "minProperties": 10**12}, "longer value"),
        ({"type": "string", "minLength": 10**12}, "more than 100000 characters"),
        ({"type": "string", "minLength": 5, "maxLength": 3}, "minLength is above"),
        ({"$ref": "#"}, "circles"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "not end"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 2}, "not end"),
        (DEEP, "not end"),
        ({"$defs": {**DOUBLING, "d40": {}}, "$ref": "#/$defs/d0"}, "circles"),
        ({"$ref": "https://example.com/schema"}, "inside the schema"),
        ({"$ref": "#/$defs/gone"}, "leads nowhere"),
        ({"$ref": 7}, "inside the schema"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": "((a{1000}){1000}){1000}"}, "found no text"),
        ({"type": "string", "pattern": "a{99999999}"}, "more than 10000 repeats"),
        ({"type": "string", "pattern": "("}, "not closed"),
        ({"type": "string", "pattern": 3}, "expected a regular expression"),
        ({"type": "text"}, "expected one of"),
        ({"type": {}}, "expected one of"),
        ({"enum": "abc"}, "expected a list"),
        ({"enum": []}, "expected a list"),
        ({"type": "integer", "minimum": 4, "maximum": 3}, "no number"),
        ({"type": "integer", "minimum": "4"}, "expected a number"),
        ({"type": "integer", "minimum": 10**400}, "expected a number"),
        ({"type": "number", "multipleOf": 0}, "expected a number > 0"),
        ({"type": "integer", "multipleOf": 5e-324, "minimum": 10**299}, "no number"),
        ({"enum": [10**400], "multipleOf": 0.5}, "none of the values"),
        ({"type": "object", "properties": [1]}, "expected an object of schemas"),
        ({"type": "object", "properties": {"a": 1}, "required": ["a"]}, "expected a schema"),
        ({"type": "object", "required": "a"}, "expected a list of names"),
        ({"type": "array", "minItems": -1}, "expected a whole number"),
        (
            {"type": "array", "minItems": 3, "uniqueItems": True, "items": {"enum": [1, 1.0]}},
            "diff",
        ),
        (
            {"type": "object", "patternProperties": {"(a{1000}){1000}": True}, "minProperties": 1},
            "found no text",
        ),
        ({"type": "object", "not": {"dependentRequired": 3}}, "object of lists"),
        ({"anyOf": []}, "expected a list of schemas"),
        ({"anyOf": [False, False]}, "nothing is allowed"),
        ({"type": "string", "not": {"type": "string"}}, "found no value"),
        (False, "nothing is allowed"),
        (
            {"type": "object", "required": ["a"], "additionalProperties": False},
            "nothing is allowed",
        ),
    ],
)
def test_hostile_schemas_end_soon_and_say_why(schema: Any, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        sample(schema)


def test_recursion_that_may_end_ends_however_many_ways_lead_on() -> None:
    schema = {
        "$defs": {
            "sum": {
                "type": "object",
                "properties": {"terms": {"type": "array", "items": {"$ref": "#/$defs/expression"}}},
                "required": ["terms"],
            },
            "pair": {
                "type": "object",
                "properties": {n: {"$ref": "#/$defs/expression"} for n in ("left", "right")},
                "required": ["left", "right"],
            },
            "number": {"type": "integer"},
            "expression": {
                "anyOf": [{"$ref": f"#/$defs/{n}"} for n in ("pair", "pair", "sum", "number")]
            },
        },
        "$ref": "#/$defs/expression",
    }
    values = [sample(schema, seed) for seed in range(50)]
    assert any(isinstance(value, dict) for value in values)
    for value in values:
        VALIDATOR(schema).validate(value)


def test_the_error_names_the_member_at_fault() -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 9, "maximum": 1}},
        "required": ["age"],
    }
    with pytest.raises(UnsatisfiableError) as unsatisfiable:
        sample(schema)
    assert unsatisfiable.value.place == "schema.age"


KEYWORDS = (
    "type properties items enum const $ref $defs anyOf oneOf allOf not if then else pattern format "
    "required minItems maxItems uniqueItems prefixItems contains minContains maxContains minLength "
    "maxLength minimum maximum exclusiveMinimum exclusiveMaximum multipleOf additionalProperties "
    "patternProperties propertyNames minProperties maxProperties dependentRequired dependentSchemas"
)
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, float("nan"), 10**400, "", "#", "(", [], [3], ["a"], {},
    {"a": 3}, {"(": {}}, {"a": "b"}, {"a": ["b"]}, {"a": [3]}, {"a": None},
]  # fmt: skip


@pytest.mark.parametrize("keyword", KEYWORDS.split())
def test_no_value_of_any_keyword_is_more_than_a_schema_error(keyword: str) -> None:
    for odd in ODD_VALUES:
        for kind in ("object", "array", "string", "number"):
            base = {"type": kind, "minItems": 1, "minProperties": 1, "items": {"enum": ["a"]}}
            for schema in (
                {**base, keyword: odd},
                {keyword: odd},
                {**base, "not": {keyword: odd}},
                {"items": {keyword: odd}, "minItems": 2, "uniqueItems": True},
                {"properties": {"a": {keyword: odd}}, "required": ["a"], "minProperties": 2},
            ):
                try:
                    sample(schema)
                except SchemaError as error:
                    told = str(error)
                else:
                    continue
                assert told.startswith("schema")
