"""Owns a small, real sentencepiece vocabulary with the traits of MiniCPM-V-2's; knows no model.

Same trainer settings and the same ids for every symbol that means something; trained on a few pages of text
kept below, so the same file comes out every time.
"""

import io
from collections.abc import Sequence

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

_TRAINED_SIZE = 1000
_BEFORE_MARKS = (
    *("<SEP>", "<CLS>", "\n", "\t"),
    *(
        f"<{slash}{tag}{tail}>"
        for tag in ("img", "td", "table", "li", "b")
        for slash, tail in (("", ""), ("/", ""))
    ),
    *"０１２３４５６７８９+-=，。！？、：￥.!?",
    *("...", "。。。", "```", "<!--", "-->", "---"),
    *"《》【】『』；．＝＜＞－＋％‼㊣／｜",
)
_MARKS = ("<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
_FIRST_MARK = 101
_FIRST_USER_DEFINED = 3  # after <unk>, <s>, </s>
_FIRST_RESERVED = 20  # <reserved_20> … <reserved_23> are <point>, </point>, <slice>, </slice>
_NUM_RESERVED = 8

_SCENES = (
    "a red bus stops at the corner of the street",
    "two children play with a blue ball on the beach",
    "a brown dog sleeps under the wooden table",
    "the picture shows a bowl of apples and a glass of water",
    "a woman in a green coat reads a newspaper at the station",
    "there are three boats on the lake and mountains in the background",
    "the sign on the wall says that the shop is open every day",
    "a man with a hat is riding a bicycle through the old town",
    "the chart compares the number of visitors of each month",
    "a white cat looks out of the window at the falling snow",
    "the menu lists coffee, tea, bread, cheese and soup with prices",
    "a yellow train crosses the bridge over the river at night",
    "people are waiting in front of the museum in the morning light",
    "the document has a title, a table with four columns and a signature",
    "a small plane flies above the clouds in the evening sky",
)
_QUESTIONS = (
    "What is in the image?",
    "Describe the image in detail.",
    "How many people can you see, and what are they doing?",
    "Which colour is the largest object in this picture?",
    "Read the text on the sign.",
    "Where is the image likely taken? Explain your answer.",
    "Is there anything unusual in the picture?",
    "What will probably happen next?",
)
_CHINESE = (
    "图片中有一只白色的猫坐在窗户旁边。",
    "这张图片里有什么？请详细描述。",
    "用户可以上传图片，然后提出问题。",
    "图中的文字写着：今天天气很好，欢迎光临。",
    "一个男人骑着自行车穿过城市的街道。",
    "桌子上有三个苹果、两杯水和一本书。",
    "请用中文回答下面的问题。",
    "这个表格显示了每个月的人数。",
)
_OTHERS = (
    "Auf dem Bild ist ein Haus mit einem roten Dach zu sehen.",
    "L'image montre une rue avec des maisons et des arbres.",
    "En la imagen hay un perro que corre por la playa.",
    "На картинке изображён большой дом у реки.",
    "写真には青い空と海が写っています。",
    "def main():\n    for i in range(10):\n        print(i)",
)


def train_vocabulary(
    vocab_size: int, sentences: Sequence[str] | None = None, trained_size: int = _TRAINED_SIZE
) -> bytes:
    """A serialised sentencepiece model of exactly `vocab_size` pieces (at least `trained_size`).

    `sentences`: what to learn from, instead of the text kept here.

    Beyond the trained ones stand pieces of the type UNUSED: never the result of encoding, but decodable, so
    that every id a model of that vocabulary may answer with is text.
    """
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(_sentences() if sentences is None else sentences),
        model_writer=trained,
        model_type="bpe",
        vocab_size=trained_size,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=list(user_defined_symbols()),
        num_threads=1,
        minloglevel=2,
    )
    return _padded(trained.getvalue(), vocab_size)


def user_defined_symbols() -> tuple[str, ...]:
    """The symbols from id 3 on: "\\n" is 5, "\\t" 6, and `<image>` stands at 101 as in the published file."""
    fill = _FIRST_MARK - _FIRST_USER_DEFINED - len(_BEFORE_MARKS)
    filler = tuple(f"<reserved_{1000 + n}>" for n in range(fill))
    reserved = tuple(f"<reserved_{_FIRST_RESERVED + n}>" for n in range(_NUM_RESERVED))
    return (*_BEFORE_MARKS, *filler, *_MARKS, *reserved)


def _sentences() -> list[str]:
    return [
        *(
            f"<用户>{question}<AI>The image shows that {scene}."
            for question in _QUESTIONS
            for scene in _SCENES
        ),
        *(f"{scene[0].upper()}{scene[1:]}. {other}." for scene in _SCENES for other in _SCENES),
        *(f"<用户>{line}<AI>{other}" for line in _CHINESE for other in _CHINESE),
        *(
            f"On {day}.{day % 12 + 1}.{1990 + day} there were {day * 37} visitors ({day * 7 % 100}%)."
            for day in range(1, 29)
        ),
        *(line for text in _OTHERS for line in text.splitlines() for _ in range(4)),
    ]


def _padded(model: bytes, vocab_size: int) -> bytes:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    for number in range(len(proto.pieces), vocab_size):
        piece = proto.pieces.add()
        piece.piece = f"▁w{number}"
        piece.score = -float(number)
        piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
    proto.trainer_spec.vocab_size = vocab_size
    serialised: bytes = proto.SerializeToString(deterministic=True)
    return serialised
