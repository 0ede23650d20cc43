"""What the benchmark's report says of rounds that were made up.

python3 -m unittest test_report
"""

import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

import report

ROUNDS = 20


def run(cpu=100.0, p50=100.0, p99=300.0, per_second=5_000.0, statuses=None, lost=0, unsent=0, busy=0.99, others=0.01, pss=10_240, slow=0):
    memory = {"rss_kib": pss, "pss_kib": pss, "anonymous_kib": pss // 2}
    latency = {f"{name}_us": value for name, value in (("p50", p50), ("p90", p50), ("p99", p99), ("p999", p99), ("max", p99))}
    statuses = statuses or {"200": 10_000}
    load = {"answers": sum(statuses.values()), "seconds": 2.0, "statuses": statuses, "arms": {"blue": 9_000, "canary": 1_000}, "lost": lost, "moved": 0, "unsent": unsent, "slow": slow,
            "latency": latency, "generator_late_p99_us": 5.0}
    return {"cpu_us": cpu, "busy": busy, "others": others, "per_second": per_second, "memory_before": memory, "memory": memory, "done": None, "is_realtime": False, "load": load}


def workload(name, contenders, rounds=ROUNDS, title=None):
    """`contenders`: by label, one run for all rounds, or what makes one of a round's number (nothing: there was none)."""
    made = {label: one if callable(one) else lambda number, one=one: one for label, one in contenders.items()}
    runs = [{"round": number, "contender": label, "measured": measured} for label, one in made.items() for number in range(rounds) if (measured := one(number))]
    return {"name": name, "title": title or name, "is_realtime": False, "is_together": name in ("workers", "operations"), "contenders": list(contenders), "runs": runs}


def measured(*workloads, rounds=ROUNDS, **more):
    machine = {"date": "2026-01-01", "kernel": "Linux", "processor": "AMD", "cores": 2, "commit": "abc", "load_average": "0.10 0.1 0.1"}
    return {"machine": machine, "rounds": rounds, "seconds": 2.0, "warm_up": 0.5, "connections": 64, "idle_clients": 10_000, "versions": {}, "arms": {}, "left_out": [],
            "workloads": list(workloads), **more}


class Reported(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = pathlib.Path(work.name)

    def report(self, *parts, options=()):
        paths = []
        for number, part in enumerate(parts):
            paths.append(self.work / f"part{number}.json")
            paths[-1].write_text(json.dumps(part))
        with mock.patch.object(sys, "argv", ["report.py", *map(str, paths), str(self.work / "out"), *options]):
            report.main()
        return (self.work / "out" / "bench.md").read_text()

    def row(self, promise, *workloads, options=(), **more):
        """What is said of a promise: the measured figure, and the verdict."""
        text = self.report(measured(*workloads, **more), options=options)
        lines = [line for line in text.splitlines() if line.startswith(f"| {promise}")]
        self.assertEqual(len(lines), 1, text)
        return [cell.strip() for cell in lines[0].strip("|").split("|")[2:4]]

    def get(self, ours, again, nginx, promise="CPU per request, GET 1 KB, against nginx", **more):
        return self.row(promise, workload("get", {"switchback": ours, "switchback again": again, "nginx": nginx}, **more), **more)[1]


class Failures(Reported):
    def test_a_run_in_which_something_failed_is_no_figure(self):
        cheap_and_bad = lambda number: run(cpu=1.0, statuses={"200": 9_999, "502": 1}) if number < 2 else run(cpu=200.0)
        said = self.row("CPU per request, GET 1 KB, against nginx", workload("get", {"switchback": cheap_and_bad, "nginx": run()}))
        self.assertEqual(said, ["2.00 (2.00 - 2.00)", "**missed**, of 18 rounds only"])

    def test_a_contender_that_fails_often_meets_nothing(self):
        for bad in (run(cpu=1.0, lost=1), run(cpu=1.0, unsent=1), run(cpu=1.0, statuses={"200": 1, "404": 1}), None):
            said = self.get(lambda number: bad if number < 3 else run(cpu=50.0), run(), run())
            self.assertEqual(said, "not shown: switchback: 3 of 20 runs had failures")

    def test_who_has_no_clean_run_is_reported_all_the_same(self):
        bad = run(statuses={"503": 9})
        said = self.row("added p50 at 5,000 a second, above nginx's |", workload("open5", dict.fromkeys(("straight", "switchback", "nginx"), bad)),
                        workload("idle", {"switchback": bad, "haproxy": bad}), workload("operations", {"switchback, left alone": bad}))
        self.assertEqual(said[1], "not shown: switchback: 20 of 20 runs had failures")


class Noise(Reported):
    def test_a_target_is_met_beyond_noise_by_a_quartile_and_by_more_than_the_pair_differs(self):
        self.assertEqual(self.get(run(cpu=90.0), run(cpu=91.0), run()), "met, beyond noise")
        self.assertEqual(self.get(run(cpu=70.0), run(cpu=71.0), run()), "met, beyond noise, goal 0.85 too, stretch 0.75 too")
        self.assertEqual(self.get(run(cpu=90.0), run(cpu=110.0), run()), "met, not beyond noise")
        self.assertEqual(self.get(run(cpu=84.0), run(cpu=86.0), run()), "met, beyond noise, goal 0.85 too (not beyond noise)")
        spread = lambda number: run(cpu=(80.0, 95.0, 120.0)[number % 3])
        self.assertEqual(self.get(spread, spread, run()), "met, not beyond noise")

    def test_without_a_pair_nothing_is_beyond_noise(self):
        said = self.row("CPU per request, GET 1 KB, against nginx", workload("get", {"switchback": run(cpu=90.0), "nginx": run()}))
        self.assertEqual(said[1], "met, not beyond noise")

    def test_a_target_is_missed_within_noise_where_it_lies_between_the_quartiles(self):
        spread = lambda number: run(cpu=(80.0, 105.0, 120.0)[number % 3])
        self.assertEqual(self.get(spread, spread, run()), "missed, within noise")
        self.assertEqual(self.get(run(cpu=105.0), run(cpu=105.0), run()), "**missed**")

    def test_throughput_is_judged_the_other_way_round(self):
        promise = "throughput of one worker"
        fast = lambda rate: run(per_second=rate)
        self.assertEqual(self.get(fast(6_000), fast(6_010), fast(5_000), promise), "met, beyond noise")
        self.assertEqual(self.get(fast(5_100), fast(5_100), fast(5_000), promise), "**missed**")
        spread = lambda number: fast((5_000, 5_600, 6_000)[number % 3])
        self.assertEqual(self.get(spread, spread, fast(5_000), promise), "met, not beyond noise")

    def test_few_rounds_and_idle_processors_are_told(self):
        said = self.get(run(cpu=90.0), run(cpu=90.0), run(busy=0.85), rounds=5)
        self.assertEqual(said, "met, not beyond noise, processor 85 % busy (nginx), of 5 rounds only")

    def test_disturbed_workloads_are_named(self):
        text = self.report(measured(workload("get", {"switchback": run(others=0.07)}), workload("tls", {"switchback": run()})))
        self.assertIn("upper quartile: `get` (7%).\n", text)


class Added(Reported):
    PROMISE = "added p99 at 5,000 a second against nginx's, real-time priority"

    def added(self, ours, nginx, promise=PROMISE, **more):
        return self.row(promise, workload("open5-rt", {"straight": run(p99=100.0), "switchback": ours, "switchback again": ours, "nginx": nginx}), **more)

    def test_who_does_not_keep_up_has_no_latencies(self):
        self.assertEqual(self.added(run(), run(per_second=1_000.0, unsent=9))[1], "not shown: nginx does not keep up")
        self.assertEqual(self.added(run(per_second=1_000.0), run())[1], "not shown: switchback does not keep up")

    def test_what_an_open_loop_never_sent_is_no_failure_where_it_keeps_up(self):
        self.assertEqual(self.added(run(p99=200.0, unsent=1), run(p99=200.0)), ["1.00 (1.00 - 1.00)", "met, beyond noise"])

    def test_rounds_in_which_nothing_was_added_are_left_out_of_ratios(self):
        ours = lambda number: run(p99=50.0 if number < 4 else 200.0)
        said = self.added(ours, run(p99=200.0))
        self.assertEqual(said, ["1.00 (1.00 - 1.00)", "met, not beyond noise, 4 rounds left out in which one of the two added nothing, of 16 rounds only"])
        said = self.added(run(p99=200.0), lambda number: run(p99=90.0 if number < 11 else 200.0))
        self.assertEqual(said[1], "not shown: noise: in 11 of 20 rounds one of the two added nothing")

    def test_differences_keep_their_signs(self):
        ours, nginx = run(p50=80.0), run(p50=90.0)
        said = self.row("added p50 at 5,000 a second, above nginx's |", workload("open5", {"straight": run(p50=100.0), "switchback": ours, "switchback again": ours, "nginx": nginx}))
        self.assertEqual(said, ["-10 us (-10 - -10)", "met, beyond noise"])

    def test_what_policies_add_is_compared(self):
        costs = {"switchback": 50.5, "switchback again": 50.5, "switchback native": 50.0, "nginx Lua": 62.0, "nginx split_clients": 60.0, "envoy proxy-wasm": 210.0,
                 "envoy weighted_clusters": 200.0, "haproxy Lua": 61.0, "haproxy ACL": 60.0}
        policy = workload("policy", {label: run(cpu=cost) for label, cost in costs.items()})
        self.assertEqual(self.row("a programmable policy on a header adds, above what nginx Lua adds", policy), ["-1.50 us (-1.50 - -1.50)", "met, beyond noise"])
        self.assertEqual(self.row("a programmable policy on a header adds, against what Envoy proxy-wasm adds", policy), ["0.050 (0.050 - 0.050)", "met, beyond noise"])
        self.assertEqual(self.row("a programmable policy on a header adds, against what HAProxy Lua adds", policy), ["0.500 (0.500 - 0.500)", "**missed**"])


class Rows(Reported):
    PROMISE = "answers over 10 ms"

    def operated(self, slow, control, other):
        """Each says how many answers of a round were slow."""
        labels = {"switchback, flipped and swapped": slow, "switchback, left alone": control, "switchback again, left alone": other}
        said = {label: lambda number, count=count: run(slow=count(number)) for label, count in labels.items()}
        return self.row(self.PROMISE, workload("operations", said))

    def test_slow_answers_in_each_round_are_no_chance(self):
        measured, verdict = self.operated(lambda _: 3, lambda number: number % 2, lambda number: number % 2)
        self.assertEqual(verdict, "**missed**")
        self.assertTrue(measured.startswith("300 (in 20 of 20 rounds); controls 50 (10) and 50 (10): so much more by chance in 0%"), measured)

    def test_one_stall_of_many_answers_may_be_anybodys(self):
        stall = lambda number: 64 if number == 3 else 0
        none = lambda _: 0
        self.assertEqual(self.operated(stall, none, none)[1], "met")
        self.assertEqual(self.operated(none, stall, stall)[1], "met")
        self.assertEqual(self.operated(none, none, none)[1], "met")

    def test_controls_that_differ_are_named(self):
        self.assertEqual(self.operated(lambda _: 1, lambda _: 2, lambda _: 0)[1], "met, controls differ too")
        self.assertEqual(self.operated(lambda _: 1, lambda _: 0, lambda _: 2)[1], "met, controls differ too")

    def test_instructions_come_from_their_own_file(self):
        promise = "user instructions per query, split"
        self.assertEqual(self.row(promise), ["not measured", ""])
        for count, wanted in ((22_000, "met"), (22_001, "**missed**")):
            (self.work / "counted").write_text(json.dumps({"program": "a", "workloads": {"split": {"instructions": count}}}))
            self.assertEqual(self.row(promise, options=["--instructions", str(self.work / "counted")]), [f"{count:,}", wanted])

    def test_http2_to_the_backends_is_held_against_http1_and_the_floor(self):
        h2 = workload("h2-upstream", {"floor, HTTP/1.1": run(cpu=40.0), "switchback": run(cpu=50.0), "switchback again": run(cpu=50.0), "switchback, HTTP/1.1": run(cpu=60.0),
                                      "switchback, HTTP/2 on both sides": run(cpu=30.0)})
        self.assertEqual(self.row("CPU per request, HTTP/2 on both sides (h2load", h2), ["0.75 (0.75 - 0.75)", "met, beyond noise"])
        self.assertEqual(self.row("CPU per request, HTTP/2 to the backends, against ours", h2)[1], "met, beyond noise")
        self.assertEqual(self.row("CPU per request, HTTP/2 to the backends, against the floor", h2)[1], "**missed**")

    def test_memory_of_nothing_is_not_measured(self):
        self.assertEqual(self.row("memory with idle connections", workload("idle", {"switchback": run(), "haproxy": run(pss=0)})), ["not measured", ""])


class Split(Reported):
    PROMISE = "CPU per request, split 90/10, against nginx"

    def said(self, ours):
        return self.row(self.PROMISE, workload("split", {"switchback": ours, "switchback again": run(cpu=51.0), "nginx": run()}))

    def test_who_does_not_split_users_as_is_asked_is_compared_with_nobody(self):
        self.assertEqual(self.said(run(cpu=50.0))[1], "met, beyond noise, goal 0.85 too, stretch 0.75 too")
        wrong = run(cpu=50.0)
        for arms, moved in (({"blue": 10_000}, 0), ({"canary": 10_000}, 0), ({"blue": 9_000, "canary": 1_000}, 1)):
            wrong["load"] = wrong["load"] | {"arms": arms, "moved": moved}
            self.assertEqual(self.said(wrong), ["", "not shown: switchback: in 20 of 20 runs users were not split as was asked"])

    def test_a_run_or_two_are_left_out(self):
        wrong = run(cpu=50.0)
        wrong["load"] = wrong["load"] | {"moved": 3}
        self.assertEqual(self.said(lambda number: wrong if number < 2 else run(cpu=90.0))[0], "0.90 (0.90 - 0.90)")


class Turns(Reported):
    def test_a_time_that_was_cut_is_several_rounds(self):
        cut = workload("get", {"switchback": run(cpu=50.0), "switchback again": run(cpu=51.0), "nginx": run()}, rounds=80) | {"turns": 4}
        promise, met = "CPU per request, GET 1 KB, against nginx", "met, beyond noise, goal 0.85 too, stretch 0.75 too"
        self.assertEqual(self.row(promise, cut, rounds=20)[1], met)
        # Turns of one start are not as good as starts.
        few = cut | {"runs": [one for one in cut["runs"] if one["round"] < 76]}
        self.assertTrue(self.row(promise, few, rounds=19)[1].endswith("(not beyond noise), of 19 rounds only"))

    def test_what_else_ran_is_known_of_turns_together(self):
        said = lambda others: workload("get", {"switchback": lambda number: run(cpu=50.0, others=others[number % 4]), "nginx": run(others=0.0)}, rounds=20) | {"turns": 4}
        promise = "CPU per request, GET 1 KB, against nginx"
        self.assertNotIn("disturbed", self.row(promise, said((0.2, -0.2, 0.2, -0.2)), rounds=5)[1])
        self.assertTrue(self.row(promise, said((0.3, 0.1, 0.3, 0.1)), rounds=5)[1].endswith("stretch 0.75 too (not beyond noise), disturbed, of 5 rounds only"))

    def test_rounds_that_never_began_are_no_failures(self):
        text = self.report(measured(workload("get", {"switchback": run(cpu=50.0), "switchback again": run(cpu=51.0), "nginx": run()}, rounds=7)))
        self.assertIn("**Not finished**: of some workloads fewer rounds were measured: `get` (7).", text)
        self.assertIn("| 0.50 (0.50 - 0.50) | met, not beyond noise, goal 0.85 too (not beyond noise), stretch 0.75 too (not beyond noise), of 7 rounds only |", text)


class Files(Reported):
    def test_what_is_no_measurement_is_refused_in_a_line(self):
        good = measured(workload("get", {"switchback": run()}))
        nameless = {key: value for key, value in good.items() if key != "workloads"}
        evil = measured(workload("../../evil", {"switchback": run()}))
        for text, wanted in (("", "Expecting value"), ("[]", "not what switchback-bench writes"), ("{}", "not what switchback-bench writes"), (json.dumps(nameless), "'workloads'"),
                             (json.dumps(evil), "no workload is called '../../evil'"), (json.dumps(measured(workload("get", {"switchback": run(cpu=-5.0)}))), "-5.0 is no number"),
                             (json.dumps(measured(workload("get", {"switchback": run(cpu=float("nan"))}))), "NaN is no number"), (json.dumps(good | {"rounds": 0}), "no rounds")):
            path = self.work / "odd.json"
            path.write_text(text)
            with mock.patch.object(sys, "argv", ["report.py", str(path), str(self.work / "out")]), self.assertRaises(SystemExit) as refused:
                report.main()
            self.assertIn(wanted, str(refused.exception))
            self.assertTrue(str(refused.exception).startswith("bench/report.py: "))
        self.assertFalse((self.work / "out").exists())

    def test_instructions_are_of_the_program_that_was_measured(self):
        program = {"path": "switchback", "sha256": "a" * 64, "bytes": 1, "version": None, "profile": None, "is_dirty": False}
        counted = self.work / "counted"
        for sha256 in ("b" * 64, None):
            counted.write_text(json.dumps({"program": sha256, "workloads": {"split": {"instructions": 1}}}))
            with self.assertRaises(SystemExit) as refused:
                self.report(measured(workload("get", {"switchback": run()}), program=program), options=["--instructions", str(counted)])
            self.assertIn("it is of the program", str(refused.exception))

    def test_plots_are_escaped_and_those_of_earlier_reports_are_removed(self):
        self.report(measured(workload("get", {"switchback": run()}), workload("tls", {"switchback": run()})))
        self.report(measured(workload("get", {"switchback <1>": run()}, title="GET & more")))
        self.assertEqual([path.name for path in (self.work / "out").glob("*.svg")], ["bench-get.svg"])
        plot = (self.work / "out" / "bench-get.svg").read_text()
        self.assertIn("GET &amp; more", plot)
        self.assertIn("switchback &lt;1&gt;", plot)

    def test_the_program_is_named_without_its_folders(self):
        program = {"path": "/secret/place/switchback", "sha256": "0123456789abcdef", "bytes": 1, "version": "1.2", "profile": None, "is_dirty": True}
        text = self.report(measured(workload("get", {"switchback": run()}), program=program))
        self.assertIn("The program: `switchback`, SHA-256 0123456789ab, 1.2, with uncommitted changes.\n", text)
        self.assertNotIn("secret", text)

    def test_parts_are_of_one_program(self):
        part = lambda name, sha256: measured(workload(name, {"switchback": run()}), **({"program": {"path": "switchback", "sha256": sha256, "bytes": 1, "version": None,
                                                                                                  "profile": "dist", "is_dirty": False}} if sha256 else {}))
        for one, other in (("a" * 64, "b" * 64), ("a" * 64, None)):
            with self.assertRaises(SystemExit) as refused:
                self.report(part("get", one), part("tls", other))
            self.assertIn("SHA-256", str(refused.exception))
        self.assertIn("## tls", self.report(part("get", None), part("tls", None)))
        self.assertIn("profile dist.", self.report(part("get", "a" * 64), part("tls", "a" * 64)))


if __name__ == "__main__":
    unittest.main()
