"""Moving a collection from one embedding space to another while it is in use."""

from samespace.migrate.dimensions import DimensionReport as DimensionReport
from samespace.migrate.dimensions import compare_dimensions as compare_dimensions
from samespace.migrate.dimensions import dry_run as dry_run
from samespace.migrate.estimating import Rates as Rates
from samespace.migrate.notes import RunNote as RunNote
from samespace.migrate.notes import RunNotes as RunNotes
from samespace.migrate.notes import read_notes as read_notes
from samespace.migrate.plan import MigrationPlan as MigrationPlan
from samespace.migrate.plan import PlannedCollection as PlannedCollection
from samespace.migrate.plan import PlannedSlot as PlannedSlot
from samespace.migrate.plan import check_holds as check_holds
from samespace.migrate.planning import plan as plan
from samespace.migrate.progress import CollectionProgress as CollectionProgress
from samespace.migrate.progress import MigrationReport as MigrationReport
from samespace.migrate.progress import SlotProgress as SlotProgress
from samespace.migrate.running import MigrationRun as MigrationRun
from samespace.migrate.running import run as run
from samespace.migrate.status import CollectionStatus as CollectionStatus
from samespace.migrate.status import MigrationStatus as MigrationStatus
from samespace.migrate.status import SlotStatus as SlotStatus
from samespace.migrate.status import status as status
