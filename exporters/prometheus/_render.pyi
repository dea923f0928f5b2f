from collector.model.arrays import F64, I32, I64, U8

class Page:
    def text(self, text: bytes) -> None: ...
    def set_exemplars(self, records: U8, arena: U8) -> None: ...
    def numbers(
        self,
        name: bytes,
        quoted: bool,
        arena: U8,
        labels: I64,
        values: F64,
        times_ms: I64,
        exemplars: I32,
        openmetrics: bool,
    ) -> None: ...
    def buckets(
        self,
        name: bytes,
        quoted: bool,
        is_summary: bool,
        arena: U8,
        labels: I64,
        extras: U8,
        extra_slices: I32,
        values: F64,
        sums: F64,
        has_sum: U8,
        counts: F64,
        times_ms: I64,
        exemplars: I32,
        openmetrics: bool,
    ) -> None: ...
    def getvalue(self) -> bytes: ...
