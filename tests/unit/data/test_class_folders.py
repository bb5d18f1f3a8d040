from tag2mask.data.class_folders import class_folder_problems, merge_tags, tag_file_hint


def test_folders_of_parts_are_no_classes(tmp_path):
    (line,) = class_folder_problems(tmp_path, ["train/cat/a.jpg", "Val/dog/b.jpg"])
    assert f"give one of them: {tmp_path / 'Val'}" in line
    assert class_folder_problems(tmp_path, ["train/a.jpg", "bus/b.jpg"]) == []  # trains, buses


def test_a_folder_around_all_class_folders_is_no_class(tmp_path):
    (line,) = class_folder_problems(tmp_path, ["pets/cat/a.jpg", "pets/dog/b.jpg"])
    assert f"give that folder: {tmp_path / 'pets'}" in line
    assert class_folder_problems(tmp_path, ["cat/a.jpg", "cat/b.jpg"]) == []


def test_a_table_with_another_name_is_suggested(tmp_path):
    assert tag_file_hint(tmp_path) == ""
    (tmp_path / "labels.csv").touch()
    assert "rename it to tags.csv or add data.tags=labels.csv" in tag_file_hint(tmp_path)


def test_equal_files_become_one_image_with_all_tags(tmp_path):
    contents = {"_negative/n": b"3", "cat/a": b"1", "cat/b": b"2", "cat/c": b"2", "dog/a": b"1"}
    contents |= {"dog/d": b"3"}  # a tag is known of it after all
    images = {}
    for name, content in contents.items():
        images[name] = tmp_path / f"{name}.jpg"
        images[name].parent.mkdir(exist_ok=True)
        images[name].write_bytes(content)
    tags = {name: () if name[0] == "_" else (name[:3],) for name in images}
    kept, merged, others = merge_tags(images, tags)
    assert list(kept) == ["cat/a", "cat/b", "cat/c", "dog/d"]  # cat/c loses no tag and stays
    assert merged["cat/a"] == ("cat", "dog")
    assert others == {"cat/a": (images["dog/a"],), "dog/d": (images["_negative/n"],)}
