"""Moving a collection from one embedding space to another while it is in use."""

from samespace.migrate.dimensions import DimensionReport as DimensionReport
from samespace.migrate.dimensions import compare_dimensions as compare_dimensions
from samespace.migrate.dimensions import dry_run as dry_run
from samespace.migrate.estimating import Rates as Rates
from samespace.migrate.plan import MigrationPlan as MigrationPlan
from samespace.migrate.plan import PlannedCollection as PlannedCollection
from samespace.migrate.plan import PlannedSlot as PlannedSlot
from samespace.migrate.plan import check_holds as check_holds
from samespace.migrate.planning import plan as plan
