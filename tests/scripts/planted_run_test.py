#!/usr/bin/python3
"""A check that does not end has caught no planted bug, and does not pass the clean tree."""
import importlib.machinery
import importlib.util
import os
import unittest

RUN = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../planted/run")


def load():
    loader = importlib.machinery.SourceFileLoader("planted_run", RUN)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("planted_run", loader))
    loader.exec_module(module)
    return module


class PlantedRunTest(unittest.TestCase):
    def setUp(self):
        self.run = load()
        self.run.SECONDS = 0.1
        self.run.build = lambda *_: None

    def caught(self, command, **clean):
        self.run.CHECKS = [("check", [command])]
        return self.run.catch("/", "/", 1, True, [], **clean)

    def test_hanging_is_no_catch(self):
        self.assertEqual(self.caught("sleep 60"), [])

    def test_hanging_is_no_pass(self):
        self.assertEqual(self.caught("sleep 60", hanging="did not end"), ["check: did not end"])

    def test_ending(self):
        self.assertEqual(self.caught("true", hanging="did not end"), [])
        self.assertEqual(self.caught("false"), ["check: exit 1"])


if __name__ == "__main__":
    unittest.main()
