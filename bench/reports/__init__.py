"""Reports: metrics from raw samples, one table model, and its renderings. Pure; nothing here prints."""
