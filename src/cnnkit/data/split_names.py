"""The splits that names of folders and files mean, in common words of several languages."""

import re
import unicodedata

__all__ = ["SPLITS", "UNLABELLED", "split_of"]

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"  # images to predict
WORDS = {
    "train": """train training trainings learn learning entrainement apprentissage entrenamiento aprendizaje treino
        treinamento addestramento trening treningowy eğitim обучение обучающая тренировка 训练 訓練 学習 學習 훈련
        학습""",
    "validation": """val valid validation validate dev development validierung validacion validacao convalida walidacja
        валидация проверка 验证 驗證 検証 검증 doğrulama""",
    "test": """test tests testing eval evaluation holdout essai prueba pruebas teste testes prova testowy тест тестовая
        测试 測試 テスト 評価 테스트 시험 평가""",
    UNLABELLED: "pred predict prediction predictions inference unlabeled unlabelled submission 预测 預測 予測 예측",
}
# words beside these that do not name a split
FILLERS = """
    set sets data dataset datasets image images img imgs photo photos picture pictures pic pics folder dir seg split
    sample samples class classes cls jpg png daten datensatz bilder donnees datos dados dati imagenes imagens выборка
    набор данные 集 数据 數據 数据集 數據集 图片 圖片 图像 圖像 样本 樣本 データ 画像 用 데이터 셋 이미지
"""


def _plain(text: str) -> str:
    """Return text without accents, in lower case, in one of Unicode's forms."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in parts if not unicodedata.combining(sign))


SPLIT_OF = {_plain(word): split for split, words in WORDS.items() for word in words.split()}
FILLING = sorted(map(_plain, FILLERS.split()), key=len, reverse=True)


def split_of(name: str) -> str | None:
    """Return the split that the name of a folder or a file means: one of SPLITS, UNLABELLED, or None.

    >>> split_of("Training"), split_of("test_set"), split_of("seg_train"), split_of("测试集"), split_of("test_tube")
    ('train', 'test', 'train', 'test', None)
    """
    words = re.findall(r"[^\W\d_]+", _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)))
    found = {SPLIT_OF.get(core) for word in words if (core := _without_fillers(word))}
    return found.pop() if len(found) == 1 else None


def _without_fillers(word: str) -> str:
    """Return a word without the fillers at its start and end: "train" for "trainset", "" for "set"."""
    while word not in SPLIT_OF:
        rest = next((word.removesuffix(f) for f in FILLING if word.endswith(f)), None)
        if rest is None:
            rest = next((word.removeprefix(f) for f in FILLING if word.startswith(f)), word)
        if rest == word:
            break
        word = rest
    return word
