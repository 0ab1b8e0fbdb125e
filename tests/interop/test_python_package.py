#!/usr/bin/python3
"""client/python against the daemon, on Debian's grpcio.

    BINARY_DIR=build/release tests/interop/test_python_package.py [-v] [Case.test]
"""
import os
import pydoc
import subprocess
import sys
import unittest
from pathlib import Path

from grpc_raw import Contract
from test_zoned_python import Daemon

PYTHON = Path(__file__).resolve().parents[2] / "client/python"
sys.path.insert(0, str(PYTHON / "src"))
import zoned  # noqa: E402


class PackageCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(Contract())
        cls.address = f"unix:{cls.daemon.dir.name}/s"
        cls.z = zoned.connect(cls.address, timeout=600)

    @classmethod
    def tearDownClass(cls):
        cls.z.close()
        rc = cls.daemon.stop()
        cls.daemon.remove()
        assert rc == 0, rc

    def setUp(self):
        self.m = self.z.create(self.id().split(".")[-1], ram="1G", split="3G")

    def tearDown(self):
        self.m.destroy()


class Ops(PackageCase):
    def test_a_result_is_a_mapping_with_attributes(self):
        page = self.m.alloc(gfp="GFP_HIGHUSER", order=1, owner="me")
        self.assertTrue(page.ok)
        self.assertEqual(page.zone, "ZONE_HIGHMEM")
        self.assertEqual(dict(page)["pfn"], page.pfn)
        self.assertEqual(page.op, 1)
        with self.assertRaises(AttributeError):
            page.nothing
        self.assertEqual(self.m.page(pfn=page.pfn).op, 1)
        self.assertEqual(self.m.free_pages(pfn=page.pfn, order=1).status, "OK")

    def test_flags_by_name_and_numbers_alike(self):
        flags = self.m.alloc(gfp="GFP_KERNEL|__GFP_ZERO")
        number = self.m.alloc(gfp=0xcc0 | 0x100)
        self.assertEqual(flags.zone, number.zone)
        args = self.z.sql("select distinct gfp from op_alloc_pages where machine = ?1", self.m.name)
        self.assertEqual(len(args), 1)
        self.assertEqual(self.m.vmalloc(size="64K", gfp="GFP_KERNEL").nr_pages, 16)

    def test_a_status_is_an_exception_or_an_answer(self):
        page = self.m.alloc(gfp="GFP_KERNEL")
        with self.assertRaises(zoned.OpFailed) as failed:
            self.m.free(pfn=page.pfn, order=1)
        self.assertEqual(failed.exception.status, failed.exception.result.status)
        self.assertFalse(self.m.unchecked.free(pfn=page.pfn, order=1).ok)

    def test_errors_say_what_would_do(self):
        for call, error, text in (
                (lambda: self.m.aloc(), AttributeError, "did you mean alloc"),
                (lambda: self.m.alloc(), TypeError, "gfp is missing"),
                (lambda: self.m.alloc(ordr=1, gfp=0), TypeError, "it has gfp, order"),
                (lambda: self.m.alloc(gfp="GFP_X"), ValueError, "GFP_KERNEL"),
                (lambda: self.m.alloc(gfp=0xcc0, order=99), zoned.CallFailed, "INVALID_ARGUMENT"),
                (lambda: self.m.zoneinfo(cpu=1), TypeError, "no argument 'cpu'"),
                (lambda: self.z.create("x", split="4G"), ValueError, "3G_OPT"),
                (lambda: self.z.machine("none").alloc(gfp=0xcc0), zoned.CallFailed, "NOT_FOUND"),
                (lambda: self.z.sql("delete from ops"), zoned.CallFailed, ""),
                (lambda: zoned.connect("unix:/nowhere/at/all", timeout=1), zoned.CallFailed, ""),
        ):
            with self.assertRaises(error) as failed:
                call()
            self.assertIn(text, str(failed.exception))
        self.assertEqual(self.m.info["ops"], 0)

    def test_every_op_and_inspection_is_documented(self):
        for op in [*self.z.contract.ops.values(), *self.z.contract.inspections.values()]:
            method = getattr(self.m, op.word.replace("-", "_"), None)
            self.assertIsNotNone(method, op.word)
            self.assertTrue(op.doc.split("\n")[0].strip(), op.name)
            for argument in op.arguments:
                self.assertTrue(argument.doc, f"{op.name}.{argument.name}")
        text = pydoc.render_doc(self.m.memblock_alloc)
        self.assertIn("A power of two. 0: a cache line (64).", text)
        self.assertIn("order: log2 of a block's frames", pydoc.render_doc(self.m.alloc))
        self.assertIn("align: int", text)

    def test_a_list_is_data(self):
        pages = [self.m.alloc(gfp="GFP_KERNEL").pfn for _ in range(3)]
        area = self.m.vmap(pfns=pages, prot="READ|WRITE")
        self.assertEqual(self.m.kmap(pfn=pages[0]).ok, True)
        self.assertIn(f"{pages[1]:x}", self.m.walk(va=area.va + 4096).text)
        self.m.vunmap(va=area.va)

    def test_bytes_are_data(self):
        f = self.m.file_create(size="8K").file
        self.m.file_write(file=f, offset=5, data=b"zoned")
        self.assertEqual(self.m.file_read(file=f, offset=4, length=7).data, b"\0zoned\0")


class Runs(PackageCase):
    def test_futures(self):
        with self.m.run(batch=64) as run:
            futures = [run.alloc(gfp="GFP_KERNEL", owner=f"o{i % 3}") for i in range(1000)]
        pfns = {f.result().pfn for f in futures}
        self.assertEqual(len(pfns), 1000)
        self.m.check()

    def test_a_failed_op_fails_its_future_alone(self):
        with self.m.run() as run:
            bad = run.free(pfn=0)
            good = run.alloc(gfp="GFP_KERNEL")
            wrong = run.alloc(gfp="GFP_KERNEL", order=99)
        self.assertTrue(good.result().ok)
        self.assertRaises(zoned.OpFailed, bad.result)
        self.assertRaises(zoned.CallFailed, wrong.result)

    def test_flush_sends_what_there_is(self):
        with self.m.run(batch=1000) as run:
            future = run.alloc(gfp="GFP_KERNEL")
            run.flush()
            self.assertTrue(future.result(timeout=600).ok)

    def test_a_lost_daemon_ends_every_future(self):
        daemon = Daemon(Contract())
        try:
            z = zoned.connect(f"unix:{daemon.dir.name}/s")
            m = z.create("m", ram="64M")
            with m.run(batch=1000) as run:
                future = run.alloc(gfp="GFP_KERNEL")
                daemon.process.kill()
                daemon.process.wait()
            self.assertRaises(zoned.CallFailed, future.result, 600)
            z.close()
        finally:
            daemon.remove()


class Looks(PackageCase):
    def test_tables(self):
        zones = self.m.zoneinfo().zones
        self.assertEqual(zones["zone"][:3], ["ZONE_DMA", "ZONE_NORMAL", "ZONE_HIGHMEM"])
        self.assertEqual(zones.to_columns()["zone"], zones["zone"])
        self.assertEqual(zones[0]["zone"], "ZONE_DMA")
        self.assertEqual(len(zones[1:3]), 2)
        self.assertIn("Node 0, zone", self.m.buddyinfo().text)
        self.assertRaises(KeyError, lambda: zones["no such"])

    def test_a_notebook_escapes(self):
        table = self.z.sql("select '<b>' as a, null as b")
        self.assertIn("&lt;b&gt;", table._repr_html_())
        self.assertEqual(table[0], {"a": "<b>", "b": None})

    def test_sql_types_and_parameters(self):
        row = self.z.sql("select ?1, ?2, ?3, ?4, ?5", 1 << 40, 0.5, "t", b"\x00b", None)[0]
        self.assertEqual(list(row.values()), [1 << 40, 0.5, "t", b"\x00b", None])

    def test_pandas(self):
        try:
            import pandas
        except ImportError:
            self.skipTest("no pandas")
        zones = self.m.zoneinfo().zones
        frame = zones.to_pandas()
        self.assertIsInstance(frame, pandas.DataFrame)
        self.assertEqual(list(frame.columns), zones.columns)
        self.assertEqual(frame.set_index("zone").loc["ZONE_DMA", "managed"], zones[0]["managed"])
        self.assertEqual(frame["managed"].sum(), sum(zones["managed"]))
        # The history, by group; an absent value is missing, and no rows still have columns.
        for gfp in ("GFP_KERNEL", "GFP_KERNEL", "GFP_HIGHUSER"):
            self.m.alloc(gfp=gfp, owner="me")
        freed = self.m.alloc(gfp="GFP_KERNEL")
        self.m.free_pages(pfn=freed.pfn)
        ask = "select zone, pages, to_op from allocations where machine = ? order by from_op"
        pages = self.z.sql(ask, self.m.name).to_pandas()
        self.assertEqual(pages.groupby("zone")["pages"].sum().to_dict(), {"ZONE_HIGHMEM": 1, "ZONE_NORMAL": 3})
        self.assertEqual(list(pages["to_op"].isna()), [True, True, True, False])
        self.assertEqual(list(self.z.sql(ask, "nobody").to_pandas().columns), ["zone", "pages", "to_op"])

    def test_tail_names_what_it_gives(self):
        page = self.m.alloc(gfp="GFP_KERNEL", owner="me")
        record = [r for r in self.m.tail(from_start=True, follow=False) if r["op"] == page.op][0]
        self.assertEqual((record["name"], record["owner"]), ("AllocPages", "me"))
        event = [e for e in record["events"] if e["kind"] == "EVENT_ALLOC"][0]
        self.assertEqual((event["pfn"], event["zone"]), (page.pfn, page.zone))

    def test_info_and_digest(self):
        before = self.m.digest
        self.m.alloc(gfp="GFP_KERNEL")
        self.assertNotEqual(before, self.m.digest)
        self.assertEqual(self.m.info["config"]["ram"], 1 << 30)
        self.assertIn(self.m.name, self.z.machines()["name"])


class Programs(PackageCase):
    def test_the_tour(self):
        out = subprocess.run([sys.executable, PYTHON / "tour.py", self.address],
                             capture_output=True, text=True, check=True).stdout
        self.assertIn("ZONE_HIGHMEM", out)
        self.assertIn("NO_MEMORY", out)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[2])
    unittest.main()
