"""Moving a collection from one embedding space to another while it is in use."""

from samespace.migrate.plan import MigrationPlan as MigrationPlan
from samespace.migrate.plan import PlannedCollection as PlannedCollection
from samespace.migrate.plan import PlannedSlot as PlannedSlot
from samespace.migrate.plan import check_holds as check_holds
from samespace.migrate.planning import plan as plan
