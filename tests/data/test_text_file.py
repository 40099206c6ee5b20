from dlx.data.text_file import TextFile


def test_a_file_is_its_alphabet_and_its_fingerprint(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("sie hören es\n" * 100)
    dataset = TextFile(path=path, length=16)
    assert dataset.spec.tokens.vocabulary == len(set("sie hören es\n"))
    before = dataset.fingerprint()
    assert before["path"] == str(path)
    path.write_text("sie hören ex\n" * 100)
    assert TextFile(path=path).fingerprint()["samples"] != before["samples"]
