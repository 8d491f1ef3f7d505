//! Metric names, label enums and the exporter.
