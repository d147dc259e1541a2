/* Folders: list, create, delete, rename, subscriptions, special uses, status, moving over from
 * Dovecot. */
#include "store/test_util.h"

/* "INBOX+ a(- a/b+s ..." : + exists, - implied, s subscribed, ( has children, S special */
static const char *
list_text(struct fixture *fx)
{
	static char out[1024];
	struct store_list l;
	size_t n = 0;

	assert_int_equal(store_list(fx->s, &l), 0);
	out[0] = '\0';
	for (size_t i = 0; i < l.count; i++) {
		const struct store_folder *f = &l.folders[i];
		n += (size_t)snprintf(out + n, sizeof(out) - n, "%s%s%s%s%s%s", i ? " " : "",
		    f->name, f->exists ? "+" : "-", f->subscribed ? "s" : "",
		    f->has_children ? "(" : "", f->special_use ? "S" : "");
	}
	store_list_free(&l);
	return out;
}

static void
create_and_list(void **state)
{
	struct fixture *fx = *state;

	assert_string_equal(list_text(fx), "INBOX+");
	assert_int_equal(store_create(fx->s, SLICE_LIT("a/b"), 0), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a/b"), 0), -EEXIST);
	assert_int_equal(store_create(fx->s, SLICE_LIT("inbox"), 0), -EEXIST);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a.b"), 0), ERR_SYNTAX);
	assert_int_equal(store_create(fx->s, SLICE_LIT("Entwürfe"), SPECIAL_DRAFTS), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a-c"), 0), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("INBOX/kid"), 0), 0);
	assert_true(has_file(fx, ".Entw&APw-rfe/cur"));
	assert_true(has_file(fx, ".INBOX.kid/cur"));
	run("mkdir -p %s/.u/cur '%s/.Übung/cur' %s/.bad..name %s/..x; touch %s/.file", fx->root,
	    fx->root, fx->root, fx->root, fx->root);
	assert_string_equal(list_text(fx), "INBOX+( INBOX/kid+ Entwürfe+S a-( a/b+ a-c+ u+ Übung+");
	assert_int_equal(store_exists(fx->s, SLICE_LIT("Übung")), 0);
	struct mailbox *m = box(fx, "Übung", 0); /* UTF-8 on disk */
	assert_string_equal(mailbox_name(m), "Übung");
	mailbox_free(&m);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("a/b"), true), 0);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("gone/x"), true), 0);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("Entwürfe"), true), 0);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("a/b"), true), 0);
	run("printf 'V\\t2\\n\\na\\tb\\ngone\\tx\\nEntw&APw-rfe\\n' | cmp - %s/subscriptions",
	    fx->root);
	assert_string_equal(list_text(fx),
	    "INBOX+( INBOX/kid+ Entwürfe+sS a-( a/b+s a-c+ gone- gone/x-s u+ Übung+");
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("gone/x"), false), 0);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("gone/y"), false), 0);
	/* the older form of the file */
	put_file(fx, "subscriptions", "a.b\nEntw&APw-rfe\n\nINBOX\n");
	assert_string_equal(
	    list_text(fx), "INBOX+s( INBOX/kid+ Entwürfe+sS a-( a/b+s a-c+ u+ Übung+");
}

static void
delete_folders(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(store_delete(fx->s, SLICE_LIT("INBOX")), ERR_DENIED);
	assert_int_equal(store_delete(fx->s, SLICE_LIT("none")), ERR_NOT_FOUND);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a"), SPECIAL_JUNK), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a/b"), 0), 0);
	append_text(fx, "a", "x\r\n", 0);
	struct mailbox *m = box(fx, "a", 0);
	uint32_t validity = mailbox_uidvalidity(m);
	uint64_t id = mailbox_id(m);
	assert_int_equal(store_delete(fx->s, SLICE_LIT("a")), 0);
	assert_int_equal(mailbox_sync(m, 0, NULL, NULL), ERR_NOT_FOUND);
	uint32_t uid = 1;
	assert_int_equal(mailbox_expunge(m, &uid, 1, 0), ERR_NOT_FOUND);
	assert_string_equal(list_text(fx), "INBOX+ a-( a/b+");
	run("test -z \"$(ls -d %s/..bh* 2>/dev/null)\"", fx->root);
	/* a folder of that name again is another one */
	assert_int_equal(store_create(fx->s, SLICE_LIT("a"), 0), 0);
	struct mailbox *again = box(fx, "a", 0);
	assert_true(mailbox_uidvalidity(again) > validity);
	assert_true(mailbox_id(again) != id);
	assert_int_equal(mailbox_count(again), 0);
	mailbox_free(&again);
	mailbox_free(&m);
}

static void
rename_folders(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(store_create(fx->s, SLICE_LIT("a"), SPECIAL_ARCHIVE), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("a/b/c"), 0), 0);
	assert_int_equal(store_create(fx->s, SLICE_LIT("x"), 0), 0);
	append_text(fx, "a/b/c", "x\r\n", 0);
	struct mailbox *m = box(fx, "a/b/c", 0);
	uint32_t validity = mailbox_uidvalidity(m);
	assert_int_equal(store_rename(fx->s, SLICE_LIT("a"), SLICE_LIT("x")), -EEXIST);
	assert_int_equal(store_rename(fx->s, SLICE_LIT("a"), SLICE_LIT("a/b/d")), ERR_DENIED);
	assert_int_equal(store_rename(fx->s, SLICE_LIT("none"), SLICE_LIT("y")), ERR_NOT_FOUND);
	assert_int_equal(store_rename(fx->s, SLICE_LIT("a"), SLICE_LIT("p/q")), 0);
	assert_string_equal(list_text(fx), "INBOX+ p-( p/q+(S p/q/b-( p/q/b/c+ x+");
	assert_string_equal(mailbox_name(m), "p/q/b/c");
	assert_string_equal(sync_text(m, 0), "");
	assert_string_equal(content_text(m, 1), "x\r\n");
	mailbox_free(&m);
	m = box(fx, "p/q/b/c", 0);
	assert_int_equal(mailbox_uidvalidity(m), validity);
	mailbox_free(&m);
	/* an implied parent */
	assert_int_equal(store_rename(fx->s, SLICE_LIT("p/q/b"), SLICE_LIT("z")), 0);
	assert_string_equal(list_text(fx), "INBOX+ p-( p/q+S x+ z-( z/c+");
	/* INBOX: its messages move */
	append_text(fx, "INBOX", "1\r\n", FLAG_SEEN);
	put_file(fx, "new/5.five.h", "2\n");
	assert_int_equal(store_rename(fx->s, SLICE_LIT("INBOX"), SLICE_LIT("old")), 0);
	struct store_status st;
	assert_int_equal(store_status(fx->s, SLICE_LIT("INBOX"), 0, &st), 0);
	assert_int_equal(st.messages, 0);
	assert_int_equal(store_status(fx->s, SLICE_LIT("old"), STATUS_NEED_SIZE, &st), 0);
	assert_int_equal(st.messages, 2);
	assert_int_equal(st.size, 6);
	assert_int_equal(st.unseen, 1);
}

static void
status_without_opening(void **state)
{
	struct fixture *fx = *state;
	struct store_status st;

	assert_int_equal(store_status(fx->s, SLICE_LIT("none"), 0, &st), ERR_NOT_FOUND);
	put_file(fx, "new/1.a.h", "A\n");
	put_file(fx, "cur/2.b.h:2,ST", "BB\n");
	for (int i = 0; i < 4; i++) {
		assert_int_equal(store_status(fx->s, SLICE_LIT("INBOX"), STATUS_NEED_SIZE, &st), 0);
		assert_int_equal(st.messages, 2);
		assert_int_equal(st.recent, 1);
		assert_int_equal(st.unseen, 1);
		assert_int_equal(st.deleted, 1);
		assert_int_equal(st.uidnext, 3);
		assert_int_equal(st.size, 7);
		assert_int_equal(st.deleted_storage, 4);
		usleep(15000);
		if (i == 2)
			fixture_reopen(fx);
	}
	assert_true(has_file(fx, "new/1.a.h"));
	put_file(fx, "cur/3.c.h:2,", "CCC\n");
	assert_int_equal(store_status(fx->s, SLICE_LIT("INBOX"), STATUS_NEED_SIZE, &st), 0);
	assert_int_equal(st.messages, 3);
	assert_int_equal(st.size, 12);
}

static const char *usual[] = { "Drafts", "Sent", "Archive", "Junk", "Trash" };

static void
defaults_once(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(store_create_defaults(fx->s, usual, 5), 0);
	assert_string_equal(list_text(fx), "INBOX+s Archive+sS Drafts+sS Junk+sS Sent+sS Trash+sS");
	assert_int_equal(store_delete(fx->s, SLICE_LIT("Junk")), 0);
	assert_int_equal(store_subscribe(fx->s, SLICE_LIT("Junk"), false), 0);
	assert_int_equal(store_create_defaults(fx->s, usual, 5), 0);
	assert_string_equal(list_text(fx), "INBOX+s Archive+sS Drafts+sS Sent+sS Trash+sS");
}

/* A tree as Dovecot 2.3.19 left it. */
static void
moving_over(void **state)
{
	struct fixture *fx = *state;
	struct buf b = { 0 };

	put_file(fx, "dovecot-uidlist",
	    "3 V1795637903 N9 G310063128d42076b287d000083ecc375\n"
	    "1 :1795637901.M321644P32040.vm,S=18,W=21\n"
	    "2 :1795637901.M323832P32040.vm,S=18,W=21\n"
	    "3 W21 Pold-7 :1795637901.M326626P32040.vm,S=18,W=21\n"
	    "8 :1795637901.M328830P32040.vm,S=18,W=21\n");
	put_file(fx, "dovecot-keywords", "0 $Work\n1 $Forwarded\n2 custom\n");
	put_file(fx, "cur/1795637901.M323832P32040.vm,S=18,W=21:2,Sa", "Subject: m\n\nbody\n\n");
	put_file(fx, "cur/1795637901.M326626P32040.vm,S=18,W=21:2,bc", "Subject: m\n\nbody\n\n");
	put_file(fx, "new/1795637901.M328830P32040.vm,S=18,W=21", "Subject: m\n\nbody\n\n");
	put_file(fx, "new/1795637902.M1P1.vm,S=18,W=21", "Subject: n\n\nbody\n\n");
	run("cp %s/dovecot-uidlist %s/before", fx->root, fx->root);
	struct mailbox *m = box(fx, "INBOX", 0);
	assert_int_equal(mailbox_uidvalidity(m), 1795637903);
	assert_int_equal(mailbox_count(m), 4);
	assert_int_equal(mailbox_uid(m, 1), 2);
	assert_int_equal(mailbox_uid(m, 2), 3);
	assert_int_equal(mailbox_uid(m, 3), 8);
	assert_int_equal(mailbox_uid(m, 4), 9);
	assert_int_equal(mailbox_uidnext(m), 10);
	assert_int_equal(mailbox_message(m, 1)->flags, FLAG_SEEN);
	assert_int_equal(mailbox_message(m, 1)->keywords, 1);
	assert_string_equal(mailbox_keyword(m, 1), "$Forwarded");
	assert_int_equal(mailbox_message(m, 2)->keywords, 6);
	uint64_t size;
	assert_int_equal(mailbox_size(m, 2, &size), 0);
	assert_int_equal(size, 21);
	assert_int_equal(mailbox_pop3_uidl(m, 3, &b), 0);
	assert_true(slice_eq_str(buf_slice(&b), "old-7"));
	mailbox_free(&m);
	run("cmp %s/dovecot-uidlist %s/before", fx->root, fx->root);
	buf_free(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(create_and_list),
		T(delete_folders),
		T(rename_folders),
		T(status_without_opening),
		T(defaults_once),
		T(moving_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
