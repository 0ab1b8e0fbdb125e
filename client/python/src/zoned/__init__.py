"""zoned from Python: machines, ops, inspections and the history.

    import zoned
    with zoned.connect("unix:/run/zoned/zoned.sock") as z:
        m = z.create("m0", ram="2G", split="3G")
        page = m.alloc(gfp="GFP_HIGHUSER", order=0)
        print(page.pfn, page.zone)
        print(m.zoneinfo())
        print(z.sql("select kind, count(*) from events group by 1"))

Stock grpcio and protobuf are all it needs; the daemon tells the rest by reflection.
help(m.alloc) says what an op does and takes.
"""
from .client import Client, Machine, Run, connect
from .values import CallFailed, OpFailed, Report, Result, Table, ZonedError

__all__ = ["CallFailed", "Client", "Machine", "OpFailed", "Report", "Result", "Run",
           "Table", "ZonedError", "connect"]
