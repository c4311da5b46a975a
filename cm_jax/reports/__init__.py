"""The parts of `report` and `study`: rows, plots and pages."""
