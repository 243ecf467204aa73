"""ITI-Llama under transformers' ModelTesterMixin. Copied by run.py into the unpacked source distribution, run from
there."""

import unittest

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_MAPPING_NAMES
from transformers.testing_utils import require_torch, torch_device

from iti_llama import ITILlamaConfig, ITILlamaForCausalLM, ITILlamaModel

from ...generation.test_utils import GenerationTesterMixin
from ...test_configuration_common import ConfigTester
from ...test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask


MODEL_MAPPING_NAMES["iti_llama"] = "ITILlamaModel"
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["iti_llama"] = "ITILlamaForCausalLM"
AutoConfig.register("iti_llama", ITILlamaConfig, exist_ok=True)
AutoModel.register(ITILlamaConfig, ITILlamaModel, exist_ok=True)
AutoModelForCausalLM.register(ITILlamaConfig, ITILlamaForCausalLM, exist_ok=True)


class ITILlamaModelTester:
    """The sizes of transformers' own Llama tests."""

    def __init__(self, parent):
        self.parent = parent
        self.batch_size, self.seq_length, self.is_training = 13, 7, True
        self.vocab_size, self.hidden_size, self.intermediate_size = 99, 32, 32
        self.num_hidden_layers, self.num_attention_heads, self.num_key_value_heads = 2, 4, 2

    def get_config(self):
        return ITILlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            iti_directions_file=None,  # random weights, no repo: a plain Llama
        )

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], self.vocab_size)
        mask = random_attention_mask([self.batch_size, self.seq_length])
        return self.get_config(), {"input_ids": ids.to(torch_device), "attention_mask": mask.to(torch_device)}

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


@require_torch
class ITILlamaModelTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (ITILlamaModel, ITILlamaForCausalLM)
    pipeline_model_mapping = {"feature-extraction": ITILlamaModel, "text-generation": ITILlamaForCausalLM}

    def setUp(self):
        self.model_tester = ITILlamaModelTester(self)
        self.config_tester = ConfigTester(self, config_class=ITILlamaConfig, hidden_size=64)

    def test_config(self):
        self.config_tester.run_common_tests()
