# SPDX-License-Identifier: Apache-2.0
"""A vendor's own description of its API, as far as it can check a request.

specs/NAME.json is what specs/reduce.py has left of the vendor's OpenAPI file: paths, parameters
and the shapes of request bodies. What a request has that the description doesn't know is told
apart from what breaks it: servers ignore the first, so only the journal complains.
"""

import json
import re
from pathlib import Path

import jsonschema

SPECS = Path(__file__).resolve().parents[1] / "specs"
UNKNOWN = ("additionalProperties", "unevaluatedProperties")


class Operation:
    def __init__(self, template, method, found, schemas):
        self.template, self.method = template, method
        self.params = found.get("params", [])
        body = found.get("body") or {}
        self.wants_body = body.get("required", False)
        self.types = {kind: self._validator(schema, schemas)
                      for kind, schema in body.get("types", {}).items()}

    @staticmethod
    def _validator(schema, schemas):
        return jsonschema.Draft202012Validator(dict(schema, schemas=schemas)) if schema else None


class Spec:
    def __init__(self, name):
        text = json.loads((SPECS / (name + ".json")).read_text())
        self.operations = []
        for template, methods in text["paths"].items():
            pattern = re.compile(re.sub(r"\\\{[^/]*?\\\}", "([^/]+)", re.escape(template)) + "/?")
            for method, found in methods.items():
                self.operations.append(
                    (pattern, Operation(template, method.upper(), found, text["schemas"])))
        # the one without parameters first: /sandboxes/metrics is no /sandboxes/{id}
        self.operations.sort(key=lambda pair: pair[1].template.count("{"))

    def find(self, method, path):
        """(Operation, path known): the operation is None where the description has none."""
        known = False
        for pattern, operation in self.operations:
            if pattern.fullmatch(path):
                known = True
                if operation.method == method:
                    return operation, True
        return None, known


def check_args(operation, request):
    """(broken, unknown): sentences about the query."""
    broken, unknown = [], []
    known = {param["name"]: param for param in operation.params if param["in"] == "query"}
    seen = {}
    for name, value in request.args():
        seen.setdefault(name, []).append(value)
    for name, values in seen.items():
        if name not in known:
            unknown.append("query parameter %s is not in the description" % name)
            continue
        for value in values:
            problem = _check_text(known[name].get("schema", {}), value)
            if problem:
                broken.append("query parameter %s: %s" % (name, problem))
    for name, param in known.items():
        if param.get("required") and name not in seen:
            broken.append("query parameter %s is missing" % name)
    return broken, unknown


def _check_text(schema, value):
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), None)
    if kind == "array":
        pieces = [_check_text(schema.get("items", {}), each) for each in value.split(",")]
        return next((piece for piece in pieces if piece), None)
    try:
        if kind == "integer":
            value = int(value)
        elif kind == "number":
            value = float(value)
        elif kind == "boolean":
            value = {"true": True, "false": False}[value]
    except (ValueError, KeyError):
        return "%r is no %s" % (value[:80], kind)
    plain = {key: schema[key] for key in ("enum", "minimum", "maximum", "pattern", "minLength",
                                          "maxLength") if key in schema}
    errors = list(jsonschema.Draft202012Validator(plain).iter_errors(value))
    return errors[0].message[:200] if errors else None


def check_body(operation, kind, value):
    """(broken, unknown) of a JSON body that was parsed; None for no body."""
    if value is None:
        return (["a body is required"] if operation.wants_body else []), []
    if kind not in operation.types:
        return [], ["a body of type %s is not in the description" % kind] if operation.types else []
    validator = operation.types[kind]
    broken, unknown = [], []
    for error in validator.iter_errors(value) if validator else ():
        where = "/".join(str(each) for each in error.absolute_path) or "body"
        (unknown if error.validator in UNKNOWN else broken).append("%s: %s" % (where, error.message[:300]))
    return broken, unknown
