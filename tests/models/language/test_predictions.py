import torch

from models.language.preview import PREDICTED_TOKENS, continue_tokens, predict

CPU = torch.device("cpu")


def test_an_answer_is_written_as_it_is_for_its_request_alone(make_task, tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"question {i},{'answer ' * (i % 4)}{i}" for i in range(60)]
    path.write_text("input,output\n" + "\n".join(rows))
    task = make_task(path=path)
    task.setup()
    torch.manual_seed(0)
    model, rows = task.build().eval(), task.data("val")
    found = predict(model, task.dataset, CPU)
    tokenizer = task.dataset.tokenizer
    for place, row in ((0, found.rows[0]), (len(rows) - 1, found.rows[-1])):
        answer = rows.answer(place).tolist()
        (own,) = continue_tokens(
            model,
            [rows.prompt(place).tolist()],
            len(answer),
            pad=tokenizer.pad,
            device=CPU,
            seed=None,
        )
        assert row[2] == tokenizer.decode(answer[:-1])
        assert row[4] == sum(a == b for a, b in zip(own, answer, strict=True)) / len(answer)


def test_text_is_split_between_what_is_given_and_what_is_wanted(make_task):
    task = make_task(path="embedded:python", seq_len=64)
    task.setup()
    torch.manual_seed(0)
    found = predict(task.build().eval(), task.dataset, CPU)
    row = task.data("val").row(0)
    tokenizer = task.dataset.tokenizer
    name, prompt, wanted, written, right = found.rows[0]
    assert name == row.name
    assert prompt + wanted == tokenizer.decode([*row.inputs, row.labels[-1]][: len(row.inputs)])
    assert written and 0 <= right <= 1
    assert len(row.inputs) - len(row.inputs) // 2 <= PREDICTED_TOKENS


def test_everything_that_learnt_its_answers_has_all_tokens_right(make_task, tmp_path, train):
    path = tmp_path / "same.csv"
    path.write_text("input,output\n" + "\n".join(f"say {i},yes" for i in range(40)))
    task = make_task(path=path)
    task.setup()
    torch.manual_seed(0)
    model = task.build()
    train(task, model, steps=30)
    found = predict(model.eval(), task.dataset, CPU)
    assert [(row[2], row[3], row[4]) for row in found.rows] == [("yes", "yes", 1.0)] * 3
