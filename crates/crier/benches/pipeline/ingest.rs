//! Loading a file, against a bare bulk insert of the same rows; and the memory that it takes.
//!
//! Loading writes the rows in packs; that each is written by itself when it is claimed is part of what `send` measures.

use crate::{
    Sizes,
    bench::{Bench, Place, measured, rate, unlimited},
    limits,
};

/// Rows a second of `crier ingest`, and of a program that only inserts.
pub(crate) fn both(sizes: Sizes) {
    for place in [Place::Embedded, Place::servers()] {
        let bench = Bench::start(place, &unlimited());
        bench.one_text("big.csv", sizes.rows);
        let bare = limits::bare_insert(&bench, sizes.rows);
        // What a process costs that loads a single row is no cost of a row.
        bench.one_text("one.csv", 1);
        let small = measured(bench.crier(&["ingest", "one.csv"]));
        let used = measured(bench.crier(&["ingest", "big.csv"]));
        println!(
            "ingest    {}: {} rows in {:.2} s (one row: {:.2} s), {:.0} rows/s = {:.2} of the bare {:.0}/s; \
             {:.1} us of CPU a row, peak {:.0} MB",
            bench.place.name(),
            sizes.rows,
            used.wall.as_secs_f64(),
            small.wall.as_secs_f64(),
            rate(sizes.rows, used.wall),
            bare.as_secs_f64() / used.wall.as_secs_f64(),
            rate(sizes.rows, bare),
            used.cpu.as_secs_f64() * 1e6 / f64::from(sizes.rows),
            used.peak_mb,
        );
    }
}

/// Peaks of resident memory for a tenth of the rows, and for all.
pub(crate) fn memory(sizes: Sizes) {
    for rows in [sizes.rows / 10, sizes.rows] {
        let bench = Bench::start(Place::Embedded, &unlimited());
        bench.one_text("big.csv", rows);
        let check = measured(bench.crier(&["check", "big.csv"]));
        let ingest = measured(bench.crier(&["ingest", "big.csv"]));
        println!(
            "memory    {rows} rows: peak {:.1} MB for check ({:.2} s), {:.1} MB for ingest ({:.2} s)",
            check.peak_mb,
            check.wall.as_secs_f64(),
            ingest.peak_mb,
            ingest.wall.as_secs_f64()
        );
    }
}
