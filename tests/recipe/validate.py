"""validate.py SCHEMA CASES: checks the schema itself, then each case {name, valid, document} with
jsonschema; prints every case that went the other way and ends 1 if there was one."""
import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
with open(sys.argv[2], encoding="utf-8") as file:
    cases = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
wrong = 0
for case in cases:
    error = next(iter(validator.iter_errors(case["document"])), None)
    if (error is None) != case["valid"]:
        wrong += 1
        print(f"{case['name']}: expected {'valid' if case['valid'] else 'invalid'}, got {error and error.message}")
print(f"{len(cases)} cases, {wrong} wrong")
sys.exit(1 if wrong else 0)
