#!/usr/bin/python3
"""Plants bad includes in small trees and expects scripts/check_arrows.py to name each."""
import os
import subprocess
import sys
import tempfile
import unittest

CHECK = os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts/check_arrows.py")
GOOD = {
    "thrift/coordinator.thrift": "service CoordinatorPeer {}\n",
    "common/status.h": "#include <thread>\n",
    "common/failpoint.cc": "#include <fiu.h>\n",
    "recovery/log_record.h": '#include "common/status.h"\n#include <string>\n',
    "recovery/wal.h": '#include "recovery/log_record.h"\n#include <unistd.h>\n',
    "coordinator/commit_protocol.h": '#include <vector>\n#include "recovery/log_record.h"\n',
    "coordinator/coordinator_service.h": '#include "CoordinatorPeer.h"\n',
    "participant/postgres.cc": '#include <pqxx/pqxx>\n#include "common/status.h"\n',
    "client/client.h": '#include "coordinator_types.h"\n',
    "tests/all_test.cc": '#include "coordinator/commit_protocol.h"\n#include "client/client.h"\n',
}


class CheckArrowsTest(unittest.TestCase):
    def check(self, planted):
        """Exit code and words of the check on GOOD with `planted` files over it."""
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**GOOD, **planted}.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            run = subprocess.run([CHECK, "--root", root], capture_output=True, text=True,
                                 check=False)
            return run.returncode, run.stdout + run.stderr

    def expect_broken(self, path, text, *words):
        code, said = self.check({path: text})
        self.assertEqual(code, 1, said)
        self.assertIn("broken=1", said)
        for word in (path, *words):
            self.assertIn(word, said)

    def test_good_tree_passes(self):
        self.assertEqual(self.check({}), (0, "arrows: files=9 broken=0 twins=0\n"))

    def test_no_two_types_have_one_name(self):
        one = "namespace troth {\nclass A;\nstruct View {\n  struct Part {};\n};\n}  // namespace troth\n"
        code, said = self.check({"coordinator/a.h": one, "participant/b.h": one})
        self.assertEqual(code, 1, said)
        self.assertIn("participant/b.h: defines troth::View, as coordinator/a.h does", said)
        apart = one.replace("struct View {", "inline namespace apart {\nstruct View : Base {").replace(
            "};\n}", "};\n}  // namespace apart\n}")
        self.assertEqual(self.check({"coordinator/a.h": one, "participant/b.h": apart})[0], 0)
        self.assertEqual(self.check({"coordinator/a.h": one, "tests/b.h": one})[0], 0)

    def test_rooms_keep_their_arrows(self):
        self.expect_broken("common/x.h", '#include "recovery/wal.h"\n', "x.h:1:", "no other room")
        self.expect_broken("coordinator/x.cc", '\n#  include "participant/p.h"\n', "x.cc:2:")
        self.expect_broken("participant/x.cc", '#include "coordinator/commit_protocol.h"\n')
        self.expect_broken("participant/x.cc", '#include "recovery/wal.h"\n')
        self.expect_broken("client/x.cc", '#include "recovery/log_record.h"\n')
        self.expect_broken("examples/x.cc", '#include "coordinator/commit_protocol.h"\n')
        self.expect_broken("cli/x.cc", '#include "coordinator/commit_protocol.h"\n')

    def test_pure_core_knows_no_world(self):
        for header in ("<thread>", "<mutex>", "<chrono>", "<random>", "<fstream>", "<unistd.h>",
                       '"common/clock.h"', '"recovery/wal.h"', '"coordinator/coordinator.h"'):
            self.expect_broken("coordinator/commit_protocol_x.cc", f"#include {header}\n", "pure")
        self.expect_broken("recovery/in_doubt.cc", "#include <chrono>\n", "pure")

    def test_wire_types_stop_at_the_edge(self):
        self.expect_broken("coordinator/coordinator.cc", '#include "CoordinatorPeer.h"\n', "wire")
        self.expect_broken("coordinator/x.h", '#include "coordinator_types.h"\n', "wire")
        self.expect_broken("recovery/wal.cc", "#include <thrift/TBase.h>\n", "wire")

    def test_libraries_stay_behind_their_seams(self):
        self.expect_broken("coordinator/x.cc", "#include <libpq-fe.h>\n", "resource_manager.h")
        self.expect_broken("recovery/wal.cc", "#include <fiu.h>\n", "failpoint.h")
        self.expect_broken("recovery/wal.cc", "#include <gflags/gflags.h>\n", "main")

    def test_a_header_that_is_not_there_is_named(self):
        self.expect_broken("recovery/wal.cc", '#include "recovery/gone.h"\n', "no such file")

    def test_a_header_made_by_cmake_is_there(self):
        code, said = self.check({"examples/schema.h.in": "",
                                 "examples/x.cc": '#include "examples/schema.h"\n'})
        self.assertEqual(code, 0, said)

    def test_an_empty_tree_is_no_success(self):
        with tempfile.TemporaryDirectory() as root:
            self.assertEqual(subprocess.run([CHECK, "--root", root], capture_output=True,
                                            check=False).returncode, 1)


if __name__ == "__main__":
    sys.exit(unittest.main())
