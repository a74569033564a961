#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reduce a vendor's OpenAPI file to what checks a request: paths, parameters, shapes of bodies.

usage: reduce.py SOURCE [--only PATH-PREFIX]... < DESCRIPTION (YAML or JSON) > NAME.json

SOURCE is one line that says where the description comes from. No sentence of it is kept. Objects
are closed (`additionalProperties` false where the vendor says nothing), so that schema.py can tell
a field that the vendor doesn't know.
"""

import argparse
import json
import re
import sys

import yaml

KEPT = ("type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
        "maxLength", "pattern", "minItems", "maxItems", "format", "required", "const",
        "minProperties", "maxProperties")
METHODS = ("get", "put", "post", "delete", "patch", "head")


class Reducer:
    def __init__(self, text):
        self.text = text
        self.schemas = {}

    def _resolve(self, ref):
        found = self.text
        for word in ref.lstrip("#/").split("/"):
            found = found[word.replace("~1", "/").replace("~0", "~")]
        return found

    def schema(self, given, closed=True):
        if not isinstance(given, dict):
            return given
        if "$ref" in given:
            name = re.sub(r"\W", "_", given["$ref"].rpartition("/")[2])
            if name not in self.schemas:
                self.schemas[name] = {}
                self.schemas[name] = self.schema(self._resolve(given["$ref"]))
            return {"$ref": "#/schemas/" + name}
        new = {key: given[key] for key in KEPT if key in given}
        if given.get("nullable") and isinstance(new.get("type"), str):
            new["type"] = [new["type"], "null"]
            if "enum" in new and None not in new["enum"]:
                new["enum"] = [*new["enum"], None]
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(new.get(bound), bool):
                if new.pop(bound):
                    new[bound] = new.pop(limit)
        if "properties" in given:
            new["properties"] = {key: self.schema(value) for key, value in given["properties"].items()}
        if "additionalProperties" in given:
            new["additionalProperties"] = self.schema(given["additionalProperties"])
        elif "properties" in given and closed:
            new["additionalProperties"] = False
        for word in ("items",):
            if word in given:
                new[word] = self.schema(given[word])
        if "allOf" in given:
            new["allOf"] = [self._open(each) for each in given["allOf"]]
            new["unevaluatedProperties"] = False
            new.pop("additionalProperties", None)
        for word in ("oneOf", "anyOf"):
            if word in given:
                new[word] = [self.schema(each) for each in given[word]]
        return new

    def _open(self, given):
        """A part of an allOf: it mustn't close what the others add."""
        while "$ref" in given:
            given = self._resolve(given["$ref"])
        return self.schema(given, closed=False)

    def operation(self, shared, given):
        params, body = [], None
        for each in [*shared, *given.get("parameters", [])]:
            while "$ref" in each:
                each = self._resolve(each["$ref"])
            if each["in"] == "body":  # Swagger 2
                body = {"required": bool(each.get("required")),
                        "types": {"application/json": self.schema(each.get("schema", {}))}}
            elif each["in"] == "formData":
                body = {"required": True, "types": {"multipart/form-data": None}}
            elif each["in"] != "header":
                params.append({"name": each["name"], "in": each["in"],
                               "required": bool(each.get("required")),
                               "schema": self.schema(each.get("schema", each))})
                params[-1]["schema"].pop("required", None)
        found = given.get("requestBody")
        if found:
            while "$ref" in found:
                found = self._resolve(found["$ref"])
            body = {"required": bool(found.get("required")), "types": {
                kind: self.schema(each.get("schema", {})) if "json" in kind else None
                for kind, each in found["content"].items()}}
        return {key: value for key, value in (("params", params), ("body", body)) if value}

    def paths(self, only):
        new = {}
        for path, given in self.text["paths"].items():
            if only and not any(path.startswith(each) for each in only):
                continue
            shared = given.get("parameters", [])
            new[path] = {method: self.operation(shared, given[method])
                         for method in METHODS if method in given}
        return new


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    reducer = Reducer(yaml.safe_load(sys.stdin))
    paths = reducer.paths(options.only)
    json.dump({"source": options.source, "paths": paths, "schemas": reducer.schemas}, sys.stdout,
              indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
