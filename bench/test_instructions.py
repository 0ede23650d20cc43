"""What the gate says of costs that were made up.

python3 -m unittest test_instructions
"""

import contextlib
import io
import unittest

import instructions

FUNCTIONS = {"switchback::serve::http1::server::run": 8_000, "switchback::serve::forward::forward": 4_000, "memcpy": 500}


def cost(total=20_000, calls=4.0, functions=None, machine="x86_64 glibc avx2"):
    return {"says": "made up", "machine": machine, "instructions": total, "system_calls": calls + 0.3, "without_waiting": calls, "functions": functions or FUNCTIONS}


class Gate(unittest.TestCase):
    def judged(self, now, before=None):
        """What is wrong, and what is said beside it."""
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            wrong = instructions.judged("split", now, before or cost())
        return wrong, said.getvalue()

    def test_three_percent_are_allowed_and_no_more(self):
        self.assertEqual(self.judged(cost(20_600)), ([], ""))
        wrong, _ = self.judged(cost(20_601))
        self.assertIn("20,601 instructions a query, 3.0 % more than the kept 20,000", wrong[0])

    def test_what_grew_is_named_the_most_first_and_nothing_else(self):
        grown = {**FUNCTIONS, "memcpy": 900, "switchback::serve::forward::forward": 4_300, "switchback::serve::http1::server::run": 8_005}
        wrong, _ = self.judged(cost(21_000, functions=grown))
        self.assertEqual([line.split() for line in wrong[1:3]], [["+400", "memcpy"], ["+300", "switchback::serve::forward::forward"]])
        self.assertEqual(len(wrong), 4)
        # 1,000 more, of which 705 are in the functions that are kept.
        self.assertEqual(wrong[3].split()[0], "+295")

    def test_a_new_function_counts_from_the_least_that_is_kept(self):
        wrong, _ = self.judged(cost(21_200, functions={**FUNCTIONS, "base64::encode": 1_700}))
        self.assertEqual(wrong[1].split(), ["+1200", "base64::encode"])

    def test_another_kind_of_machine_may_cost_a_tenth_more_and_it_is_said(self):
        elsewhere = "x86_64 musl"
        wrong, said = self.judged(cost(22_000, machine=elsewhere))
        self.assertEqual(wrong, [])
        self.assertIn("10 % more are allowed", said)
        self.assertTrue(self.judged(cost(22_001, machine=elsewhere))[0])

    def test_fewer_are_no_fault_and_are_told_to_be_kept(self):
        wrong, said = self.judged(cost(19_000))
        self.assertEqual(wrong, [])
        self.assertIn("5.0 % fewer instructions than are kept", said)

    def test_a_system_call_more_is_a_fault_and_those_that_wait_are_not(self):
        self.assertEqual(self.judged(cost(calls=4.15))[0], [])
        self.assertIn("4.16 system calls a query", self.judged(cost(calls=4.16))[0][0])
        self.assertEqual(self.judged({**cost(), "system_calls": 9.0})[0], [])

    def test_a_workload_without_a_kept_figure_and_the_other_way_around(self):
        every = {name: cost() for name in instructions.WORKLOADS}
        names = list(every)
        self.assertEqual(instructions.unkept(names, every, True), [])
        self.assertIn("tls: no figure is kept", instructions.unkept(names, {name: one for name, one in every.items() if name != "tls"}, True)[0])
        self.assertIn("gone: a figure is kept", instructions.unkept(names, every | {"gone": cost()}, True)[0])
        self.assertEqual(instructions.unkept(["tls"], every | {"gone": cost()}, False), [])


if __name__ == "__main__":
    unittest.main()
