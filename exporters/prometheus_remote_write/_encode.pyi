from collector.model.arrays import I32, I64, U8, U64

CUSTOM_BUCKETS: int

def bucket_counts(wire: bytes, points: U8, chosen: I64) -> U64: ...

class Encoder:
    def encode(
        self,
        wire: bytes,
        points: U8,
        types: I32,
        order: I32,
        runs: I32,
        arena: U8,
        pieces: I64,
        names: U8,
        name_slices: I32,
        family: I32,
        extras: U8,
        extra_slices: I32,
        extra_first: I32,
        extra_set: I32,
        exemplar_rows: U8,
        exemplar_first: I32,
        exemplar_arena: U8,
        exemplar_slices: I32,
        quantile_rows: U8,
        quantile_first: I32,
        max_bytes: int,
    ) -> list[tuple[bytes, I64]]: ...
