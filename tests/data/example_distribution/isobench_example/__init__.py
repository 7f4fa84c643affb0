"""What this distribution adds to isobench: a target, a workload, an exporter, a section."""
