"""Text to tokens: data sets, the paper's template and its variants, batches with exact label positions, pairs."""

from icl_circuits.prompts.batch import (
    DEFAULT_SEPARATOR as DEFAULT_SEPARATOR,
)
from icl_circuits.prompts.batch import (
    PromptBatch as PromptBatch,
)
from icl_circuits.prompts.batch import (
    encode as encode,
)
from icl_circuits.prompts.batch import (
    label_positions_of as label_positions_of,
)
from icl_circuits.prompts.paired import (
    Pairs as Pairs,
)
from icl_circuits.prompts.paired import (
    pairs as pairs,
)
from icl_circuits.prompts.paired import (
    token_batch as token_batch,
)
from icl_circuits.prompts.prompt import (
    Demo as Demo,
)
from icl_circuits.prompts.prompt import (
    Prompt as Prompt,
)
from icl_circuits.prompts.prompt import (
    group_by_label as group_by_label,
)
from icl_circuits.prompts.prompt import (
    imbalance as imbalance,
)
from icl_circuits.prompts.prompt import (
    reorder as reorder,
)
from icl_circuits.prompts.prompt import (
    reverse_labels as reverse_labels,
)
from icl_circuits.prompts.prompt import (
    sample_prompts as sample_prompts,
)
from icl_circuits.prompts.prompt import (
    zero_shot as zero_shot,
)
from icl_circuits.prompts.rows import (
    Row as Row,
)
from icl_circuits.prompts.rows import (
    Rows as Rows,
)
from icl_circuits.prompts.rows import (
    load_rows as load_rows,
)
from icl_circuits.prompts.tokens import (
    TokenBatch as TokenBatch,
)
