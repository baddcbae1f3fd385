import torch

CPU = torch.device("cpu")


def test_predicted_sentences_are_those_of_the_preview(text_task):
    torch.manual_seed(0)
    model = text_task.build().eval()
    found = text_task.predictions(model)
    lines = text_task.preview(model).splitlines()
    assert [line.split()[0] for line in lines] == ["read", "generated"] * 3
    shown = [line.split(maxsplit=1)[1:] or [""] for line in lines]
    assert [[row[1]] for row in found.rows] == shown[::2]
    assert [[row[2]] for row in found.rows] == shown[1::2]
    assert len(found.pictures) == 3 and "generated sentence" in found.pictures[0].caption
