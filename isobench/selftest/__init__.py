"""The statistics tried on simulated runs whose true ratio is known."""
