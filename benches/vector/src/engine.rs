//! A worker process, seen from the driver.

use crate::dataset::DataSet;
use crate::protocol::{BUILD, Built, Loaded, Request, Searched, from_line, to_line};
use crate::sweep::{self, Point};
use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// CPU time that one measurement should take at least, so that the clock's grain does not count.
const MEASURE_S: f64 = 0.25;
const REPEAT_MAX: usize = 20;

pub struct Worker {
    pub name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(name: &'static str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: cannot start {command:?}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("{name}: no pipes");
        };
        Ok(Self {
            name,
            child,
            stdin: Some(stdin),
            stdout: BufReader::new(stdout),
        })
    }

    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        let name = self.name;
        let line = to_line(request)?;
        let sent = self.stdin.as_mut().map(|stdin| {
            stdin
                .write_all(line.as_bytes())
                .and_then(|()| stdin.flush())
        });
        let mut answer = String::new();
        let read = self.stdout.read_line(&mut answer)?;
        if read == 0 || !matches!(sent, Some(Ok(()))) {
            let status = self.child.wait()?;
            bail!("{name}: its worker ended ({status}) at {request:?}; what it said is above");
        }
        from_line(&answer).with_context(|| format!("{name}: an answer to {request:?}"))
    }

    pub fn load(&mut self, set: &DataSet) -> anyhow::Result<()> {
        let loaded: Loaded = self.ask(&Request::Load {
            base: set.base_path.to_string_lossy().into_owned(),
            queries: set.queries_path.to_string_lossy().into_owned(),
            dim: set.dim,
            mapped: false,
        })?;
        ensure!(
            loaded.rows == set.rows(),
            "{}: {} rows loaded, not {}",
            self.name,
            loaded.rows,
            set.rows()
        );
        Ok(())
    }

    pub fn build(&mut self) -> anyhow::Result<Built> {
        self.ask(&BUILD)
    }

    /// Recall and speed at one `ef`. With a `guess` of the speed, as many passes as make the time
    /// long enough to be read.
    pub fn measure(
        &mut self,
        set: &DataSet,
        ef: usize,
        queries: usize,
        guess: Option<f64>,
    ) -> anyhow::Result<Point> {
        let repeat = guess.map_or(1, |per_second| {
            (MEASURE_S * per_second / queries as f64).ceil().max(1.0) as usize
        });
        let k = set.nearest;
        let found: Searched = self.ask(&Request::Search {
            ef,
            k,
            queries,
            repeat: repeat.min(REPEAT_MAX),
            threads: 1,
        })?;
        ensure!(
            found.rows.len() == queries * k,
            "{}: {} rows for {queries} queries",
            self.name,
            found.rows.len()
        );
        Ok(Point {
            ef,
            recall: sweep::recall(&found.rows, &set.truth[..queries * k], k),
            per_second: queries as f64 / found.cpu_s.max(1e-9),
        })
    }

    /// Ever more candidates until the highest wanted recall is passed.
    pub fn sweep(
        &mut self,
        set: &DataSet,
        queries: usize,
        highest: f64,
    ) -> anyhow::Result<Vec<Point>> {
        let mut points = Vec::new();
        for ef in sweep::EFS {
            let point = self.measure(set, *ef, queries, None)?;
            points.push(point);
            if point.recall >= highest {
                break;
            }
        }
        Ok(points)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The end of its stdin ends it; the driver waits, so that no process stays behind.
        drop(self.stdin.take());
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
