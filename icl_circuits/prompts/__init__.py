"""Text to tokens: data sets, the paper's template and its variants, batches with exact label positions, pairs."""

from icl_circuits.prompts.apart import (
    tell_apart as tell_apart,
)
from icl_circuits.prompts.batch import (
    DEFAULT_SEPARATOR as DEFAULT_SEPARATOR,
    LabelScore as LabelScore,
    PromptBatch as PromptBatch,
    bos_of as bos_of,
    encode as encode,
    ids_of as ids_of,
    label_positions_of as label_positions_of,
    require_demonstrations as require_demonstrations,
    require_known_words as require_known_words,
    require_labels as require_labels,
)
from icl_circuits.prompts.cells import (
    is_whole as is_whole,
    kind as kind,
    require_characters as require_characters,
    shown as shown,
)
from icl_circuits.prompts.facts import (
    FACTS as FACTS,
    Fact as Fact,
    Facts as Facts,
    load_facts as load_facts,
)
from icl_circuits.prompts.files import (
    json_objects as json_objects,
    kind_of as kind_of,
    path_of as path_of,
    read_text as read_text,
    require_file as require_file,
)
from icl_circuits.prompts.given import (
    Texts as Texts,
    prompts_of as prompts_of,
)
from icl_circuits.prompts.paired import (
    Pairs as Pairs,
    pairs as pairs,
    token_batch as token_batch,
)
from icl_circuits.prompts.prompt import (
    Demo as Demo,
    Prompt as Prompt,
    group_by_label as group_by_label,
    imbalance as imbalance,
    reorder as reorder,
    reverse_labels as reverse_labels,
    sample_prompts as sample_prompts,
    zero_shot as zero_shot,
)
from icl_circuits.prompts.rows import (
    WORD_CATEGORIES as WORD_CATEGORIES,
    Row as Row,
    Rows as Rows,
    load_rows as load_rows,
)
from icl_circuits.prompts.tasks import (
    BETWEEN as BETWEEN,
    QUESTION as QUESTION,
    TASKS as TASKS,
    Task as Task,
    TaskPrompts as TaskPrompts,
    WordPair as WordPair,
    load_tasks as load_tasks,
    task_prompts as task_prompts,
)
from icl_circuits.prompts.template import (
    require_known as require_known,
    require_offsets as require_offsets,
    tokenized as tokenized,
)
from icl_circuits.prompts.tokens import (
    TokenBatch as TokenBatch,
)
