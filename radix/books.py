"""The accounts: one for everything public, one for each tenant that has pages, leases or a quota. Knows no nodes."""

from radix.accounts import Account, Quota
from radix.pool import PagePool
from radix.public import PUBLIC
from radix.stats import TenantPages


class Books:
    """Accounts by tenant, opened when they are first needed and closed when nothing is on them any more."""

    def __init__(self, pool: PagePool) -> None:
        self.public = Account(PUBLIC)
        self.accounts: dict[str, Account] = {PUBLIC: self.public}
        self.over: dict[Account, None] = {}
        self._pool = pool

    def account(self, tenant: str) -> Account:
        """The tenant's account, opened when there is none."""
        account = self.accounts.get(tenant)
        if account is None:
            account = self.accounts[tenant] = Account(tenant)
        return account

    def close(self, account: Account) -> None:
        """Forget an account if nothing is on it."""
        if account.idle and account is not self.public:
            del self.accounts[account.name]

    def room(self, tenant: str, available: int) -> int:
        """Of ``available`` pages, as many as the tenant's quota leaves it."""
        account = self.accounts.get(tenant)
        if account is None or not account.limit:
            return available
        return max(min(available, account.limit - account.used + account.evictable), 0)

    def most(self, tenant: str) -> int:
        """Most pages that ``tenant`` can ever have."""
        account = self.accounts.get(tenant)
        return min(account.limit, self._pool.total) if account is not None and account.limit else self._pool.total

    def set_quota(self, tenant: str, quota: Quota) -> Account:
        """Give a tenant a quota, or take it away (limit 0)."""
        account = self.account(tenant)
        account.set(quota)
        return account

    def watch(self, account: Account) -> None:
        """The account has got pages: remember it while it is above its watermark."""
        if account.excess > 0:
            self.over[account] = None

    def tenants(self) -> list[TenantPages]:
        """Pages by tenant, public ones first. O(tenants)."""
        return [
            TenantPages(None if name == PUBLIC else name, a.cached, a.private, a.evictable, a.limit, a.watermark)
            for name, a in self.accounts.items()
        ]
