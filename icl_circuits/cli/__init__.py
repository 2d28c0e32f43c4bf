"""The command line: commands from the studies, options from the fields of a job."""

from icl_circuits.cli.app import (
    main as main,
    make_app as make_app,
)
